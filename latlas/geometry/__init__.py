"""Geometry of a latent space: pure functions on a decoder that return arrays.

    metric = geometry.pullback(run.model)
    paths = geometry.geodesics(metric, z[:10], z[10:20])
    paths.length, paths.error
"""

from latlas.geometry.atlas import atlas_geodesics
from latlas.geometry.charts import chart_checks, orientation_flips, overlaps, smoothness_order
from latlas.geometry.curves import distances, exp_map, geodesics, log_map, resample
from latlas.geometry.graph import graph_distances
from latlas.geometry.means import frechet_mean, k_medoids
from latlas.geometry.metric import (
    Metric,
    decoder_of,
    density,
    encoder_of,
    ensemble,
    pullback,
    uncertain,
)
from latlas.geometry.retraining import retrained_decoders

__all__ = ["Metric", "atlas_geodesics", "chart_checks", "decoder_of", "density", "distances",
           "encoder_of", "ensemble", "exp_map", "frechet_mean", "geodesics", "graph_distances",
           "k_medoids", "log_map", "orientation_flips", "overlaps", "pullback", "resample",
           "retrained_decoders", "smoothness_order", "uncertain"]
