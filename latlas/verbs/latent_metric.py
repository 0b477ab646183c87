"""The metric of a run's latent space, of one of four kinds, and a walk along its geodesic."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_notes, say_option
from latlas.verbs.common import Array, Flag, Progress

if TYPE_CHECKING:
    from latlas.geometry import Metric

MetricKind = Annotated[Literal["pullback", "uncertain", "ensemble", "density"], Flag(
    Literal["pullback", "uncertain", "ensemble", "density"],
    "Of the latents: pullback, lengths of decoded curves; uncertain, with a decoder that is unsure "
    "far from the codes; ensemble, mean over decoders trained anew; density, inverse density of "
    "the codes.")]
#: codes of data that a metric is made of, at most; relative error of a length that is worth a note
CODES, LOOSE = 5000, 0.05


def metric_of(kind: str, model: Any, codes: Array | None, x: Array | None = None, *,
              space: str = "z", condition: Any = None, members: int = 8, seed: int = 0,
              progress: Progress | None = None) -> "Metric":
    """A metric of one of the four kinds, from ``codes`` (n, d) of the examples ``x`` (n, D) in
    model units, where it needs them. ConfigError: it does, and there are none."""
    from latlas import geometry

    options = {"space": space, "condition": condition}
    if kind == "pullback":
        return geometry.pullback(model, **options)
    if codes is None or (kind == "ensemble" and x is None):
        raise ConfigError(f"{say_option('metric', kind)} needs the codes of data, and there are "
                          "none: an encoder and data; or choose pullback", option="metric")
    if kind == "density":
        return geometry.density(codes, seed=seed)
    if kind == "ensemble":
        like = None if condition is None else condition.expand(len(codes), *condition.shape[1:])
        trained = geometry.retrained_decoders(
            model, codes, np.asarray(x).reshape(-1, *model.space.shape), members, seed=seed,
            condition=like, progress=progress)
        return geometry.ensemble(trained, **options)
    noise = None
    if x is not None:
        decode = geometry.decoder_of(model, **options)
        error = np.asarray(decode(geometry.metric.latents(codes))) - x
        noise = float(np.sqrt(np.square(error).sum(1).mean())) or None
    return geometry.uncertain(model, codes, noise=noise, seed=seed, **options)


def in_model_units(model: Any, examples: Any) -> Array:
    """(n, D) float64."""
    from latlas.verbs.passes import in_order

    return np.concatenate([np.asarray(batch.x.double().flatten(1).cpu())
                           for batch in in_order(model, examples)])


def geodesic_walk(model: Any, start: Array, end: Array, steps: int, kind: str, examples: Any, *,
                  space: str = "z", condition: Any = None, seed: int = 0) -> Array:
    """Latents (steps, d) at equal distances along the geodesic between two."""
    from latlas import geometry
    from latlas.verbs.passes import encoded

    codes = x = None
    if examples is not None:
        codes = np.asarray(encoded(model, examples), np.float64)
        x = in_model_units(model, examples)
    metric = metric_of(kind, model, codes, x, space=space, condition=condition, seed=seed)
    a, b = (np.asarray(v, np.float64).ravel() for v in (start, end))
    if a.shape != b.shape:
        raise ConfigError(f"a walk needs two latent vectors of one width; got {len(a)} and "
                          f"{len(b)}")
    paths = geometry.geodesics(metric, a[None], b[None])
    error = float(paths.error[0] / max(paths.length[0], 1e-300))
    if error > LOOSE:
        say_notes([f"the length of the geodesic, {paths.length[0]:.4g}, may be wrong by "
                   f"{error:.0%}: the {kind} metric changes within a step"])
    return geometry.resample(paths.latents, metric, steps)[0]


def atlas_walk(model: Any, start: Array, end: Array, steps: int, examples: Any) -> Any:
    """Points (steps, *shape) in model units, at equal distances along the geodesic between two flat
    latent vectors of an atlas. DataError: there are no data to find the way over."""
    import torch

    from latlas import geometry
    from latlas.verbs.passes import inference, latents_tensor

    if examples is None:
        raise DataError(f"{say_option('method', 'geodesic')} finds its way between charts over "
                        "data, and there are none; name some", option="data")
    with inference(model):
        ends = np.asarray(model.decode(latents_tensor(model, np.stack([start, end]))).mean.cpu())
    every = next(k for k in range(1, 65) if (steps - 1) * k % 4 == 0 and (steps - 1) * k >= 16)
    paths = geometry.atlas_geodesics(
        model, ends[:1], ends[1:], segments=every * (steps - 1),
        landmarks=in_model_units(model, examples).reshape(-1, *model.space.shape))
    return torch.as_tensor(paths.points[0, ::every]).reshape(-1, *model.space.shape)
