"""One figure of merit: its value, its error, the controls beside it, and what it says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GROUPS = ("Likelihood", "Reconstruction", "Translation", "Classification", "Code",
          "Disentanglement", "Latent space", "Samples")


@dataclass(frozen=True)
class Kind:
    """What does not depend on the model. ``good``: ``low``, ``high``, ``fair`` (nearest the
    control or ``fair`` value), or nothing."""

    title: str
    group: str
    good: str
    says: str
    fair: float | None = None


KINDS: dict[str, Kind] = {
    "nats": Kind("log-likelihood (nats)", "Likelihood", "high",
                 "Average log p(x) of held-out items: how probable the model finds data it never "
                 "saw (a lower bound unless exact)."),
    "bits_per_dim": Kind("bits per dimension", "Likelihood", "low",
                         "The same per pixel in bits: what an ideal coder with this model would "
                         "need to store one."),
    "ess_median": Kind("ESS, median", "Likelihood", "",
                       "Effective number of the draws behind an importance-weighted bound, of the "
                       "median item; under 10 the bound is loose."),
    "ess_min": Kind("ESS, lowest", "Likelihood", "",
                    "The same for the item with the fewest."),
    "elbo": Kind("ELBO (nats)", "Likelihood", "high",
                 "Evidence lower bound, what a VAE is trained on: minus the two parts below."),
    "elbo_reconstruction": Kind("  reconstruction part", "Likelihood", "",
                                "−E log p(x|z): nats lost on the item given its code."),
    "elbo_kl": Kind("  KL part", "Likelihood", "",
                    "KL(q(z|x) ‖ p(z)): nats that the code carries about the item."),
    "mse": Kind("squared error", "Reconstruction", "low",
                "Mean squared difference per scalar between held-out items and their "
                "reconstruction, in the data's units."),
    "mse_unit": Kind("squared error, range 0–1", "Reconstruction", "low",
                     "The same with the levels scaled to 0 … 1, to compare data of different "
                     "depth."),
    "l1": Kind("absolute difference, range 0–1", "Translation", "low",
               "Mean absolute difference per scalar between a translation and the picture that "
               "belongs to it."),
    "psnr": Kind("PSNR (dB)", "Translation", "high",
                 "Peak signal-to-noise ratio: the mean squared difference on a logarithmic scale."),
    "ssim": Kind("SSIM", "Translation", "high",
                 "Structural similarity: do light, contrast and pattern agree, window by window? 1 "
                 "for the same picture."),
    "cycle": Kind("cycle-consistency error, range 0–1", "Translation", "low",
                  "Mean absolute difference between an item and what comes of it on the way to the "
                  "other domain and back."),
    "flicker": Kind("flicker, range 0–1", "Translation", "low",
                    "Mean absolute difference between a translated frame and the one before it, "
                    "moved as the input moves; the control is the input's own."),
    "accuracy": Kind("accuracy", "Classification", "high",
                     "Share of held-out items whose class is the one found most probable; the "
                     "control says the commonest class of all."),
    "accuracy_worst": Kind("accuracy, worst class", "Classification", "high",
                           "The same of the class for which it is lowest."),
    "cross_entropy": Kind("cross-entropy (nats)", "Classification", "low",
                          "−log p(class|x), the mean over held-out items; the control knows how "
                          "common the classes are."),
    "active_units": Kind("active units", "Code", "",
                         "Dimensions of the code whose mean varies over the data by more than "
                         "0.01; the others carry nothing."),
    "latent_dim": Kind("size of the code", "Code", "", "Dimensions of the code."),
    "mig": Kind("MIG", "Disentanglement", "high",
                "Mutual information gap: how much more the best dimension tells of a factor than "
                "the second best, as a share of all there is to tell."),
    "dci_disentanglement": Kind("DCI disentanglement", "Disentanglement", "high",
                                "Does each dimension serve one factor only? By the importances of "
                                "a random forest."),
    "dci_completeness": Kind("DCI completeness", "Disentanglement", "high",
                             "Is each factor served by one dimension only? By the same forest."),
    "dci_informativeness": Kind("DCI informativeness", "Disentanglement", "high",
                                "Balanced accuracy of the forest on other items: what the code "
                                "knows of the factors, entangled or not."),
    "sap": Kind("SAP", "Disentanglement", "high",
                "Separated attribute predictability: how much better thresholds on the best "
                "dimension predict a factor than on the second best."),
    "factor_vae_score": Kind("FactorVAE score", "Disentanglement", "high",
                             "How often the dimension that varies least names the factor that "
                             "was held fixed; one over the number of factors is chance."),
    "beta_vae_score": Kind("BetaVAE score", "Disentanglement", "high",
                           "How often a linear classifier names the factor that pairs of items "
                           "share; it hardly tells good codes apart, see the control."),
    "modularity": Kind("modularity", "Disentanglement", "high",
                       "Does each dimension tell of one factor only? By mutual information; a "
                       "dimension may share its factor with others."),
    "completeness": Kind("completeness", "Latent space", "high",
                         "Share of prior draws that decode to something where held-out items lie "
                         "densely; fresh real data gets about a half. One likely thing made over "
                         "and over has it too: read it with coverage and active units."),
    "slope_median": Kind("decoder slope, median", "Latent space", "",
                         "How far the decoded item moves per standard deviation of the prior, in "
                         "distances between neighbouring real items; 0 if the code is ignored."),
    "slope_high": Kind("decoder slope, 99%", "Latent space", "",
                       "The same at the steepest places."),
    "unevenness": Kind("unevenness, 99% / median", "Latent space", "low",
                       "How much faster the decoded item changes at steep places: 1 is perfectly "
                       "even."),
    "largest_jump": Kind("largest jump", "Latent space", "low",
                         "Longest of 64 steps between two draws of the prior, in distances between "
                         "neighbouring items; a cross-fade of the ends is the shortest way."),
    "information": Kind("I(x; z) (nats)", "Latent space", "",
                        "What the codes tell of which item it was: the useful part of the KL; "
                        "never above log n."),
    "information_upper": Kind("  at most", "Latent space", "",
                              "The same with an item's own posterior left out: the population's "
                              "value lies between the two."),
    "marginal_kl": Kind("KL(q(z) ‖ p(z)) (nats)", "Latent space", "low",
                        "How far the codes of all items together are from the prior: samples "
                        "start where no item's code is."),
    "total_correlation": Kind("total correlation (nats)", "Latent space", "low",
                              "How much the dimensions of the code tell of each other; 0 if they "
                              "are independent."),
    "linear_tc": Kind("  total correlation, linear part", "Latent space", "low",
                      "−½ log|R| of the codes' correlations: what few items suffice to see."),
    "dimension_kl": Kind("KL of dimensions (nats)", "Latent space", "low",
                         "Σ_j KL(q(z_j) ‖ p(z_j)): each dimension by itself against the prior; "
                         "with the total correlation it makes up KL(q(z) ‖ p(z))."),
    "frechet": Kind("Fréchet distance", "Samples", "low",
                    "Distance between Gaussians fitted to features of samples and of real items; "
                    "the control shows what the number of items alone gives."),
    "kernel": Kind("kernel distance", "Samples", "low",
                   "Maximum mean discrepancy of the features; 0 is expected of real data.", 0.0),
    "sliced": Kind("sliced Wasserstein", "Samples", "low",
                   "Mean distance of the features along random directions; the control shows what "
                   "the number of items alone gives."),
    "precision": Kind("precision", "Samples", "high",
                      "Share of samples that lie among the real items: do they look real?"),
    "recall": Kind("recall", "Samples", "high",
                   "Share of real items that lie among the samples: is every kind made?"),
    "density": Kind("density", "Samples", "high",
                    "How densely real items surround the samples; about 1 for real data.", 1.0),
    "coverage": Kind("coverage", "Samples", "high",
                     "Share of real items with a sample near them."),
    "two_sample": Kind("1-NN accuracy", "Samples", "fair",
                       "How well a nearest neighbour tells samples from real: 0.5 not at all, 1 "
                       "always.", 0.5),
    "two_sample_p": Kind("1-NN p-value", "Samples", "",
                         "How often chance alone is as far from 0.5."),
    "copying_z": Kind("copying z", "Samples", "fair",
                      "Are samples nearer to training items than fresh real items are? Under −3: "
                      "yes, the model copies; over 3: they are farther off than real ones.", 0.0),
    "near_copies": Kind("near copies", "Samples", "low",
                        "Share of samples as near to a training item as the nearest 1% of real "
                        "items; 0.01 is fair.", 0.01),
    "nearest_ratio": Kind("nearest-train ratio", "Samples", "fair",
                          "Distance to the nearest training item, samples over real items: 1 is "
                          "fair, 0 is a copy.", 1.0),
    "authenticity": Kind("authenticity", "Samples", "fair",
                         "Share of samples farther from their nearest training item than that "
                         "item is from its own neighbour; 0 is copying, real data shows what is "
                         "fair."),
    "modes": Kind("modes covered", "Samples", "high",
                  "How many classes of the data are among the samples: by the balls of three "
                  "standard deviations around their means (points), else by the classifier."),
    "mode_kl": Kind("KL of mode frequencies (nats)", "Samples", "low",
                    "How far the frequencies of the classes among the samples are from those among "
                    "the training items.", 0.0),
    "high_quality": Kind("within a mode", "Samples", "high",
                         "Share of samples within three standard deviations of the nearest "
                         "class mean."),
    "diversity": Kind("diversity within classes", "Samples", "fair",
                      "Mean distance of two samples that are taken for one class, over that of two "
                      "real items; 0 if every class is one item over and over.", 1.0),
    "label_match": Kind("taken for their label", "Samples", "high",
                        "Share of samples that the classifier takes for the class they were "
                        "asked to be."),
    "items": Kind("items a side", "Samples", "",
                  "How many samples and real items the figures of this group compare."),
}


@dataclass(frozen=True)
class Figure:
    """A value of one of :data:`KINDS`.

    Attributes:
        error: standard error of the value.
        control: the same figure of what could explain the value: held-out real data for samples,
            a diagonal Gaussian for likelihoods, the training mean for reconstructions.
        memoriser: the same figure of exact copies of training items.
        ceiling: the same figure of the best there could be: of the known factors as codes.
        flag: a few words where the figure cannot be relied on or compared.
    """

    key: str
    value: float
    error: float | None = None
    control: float | None = None
    control_name: str = ""
    memoriser: float | None = None
    flag: str = ""
    ceiling: float | None = None

    @property
    def kind(self) -> Kind:
        """Title, group, direction and explanation."""
        return KINDS[self.key]

    def text(self) -> str:
        """``−85.21 ± 0.24``: the error to two digits, the value as far as the error lets it."""
        if not self.error or not math.isfinite(self.error) or not math.isfinite(self.value):
            return number(self.value)
        places = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:,.{places}f} ± {self.error:,.{places}f}".replace("-", "−")

    def to_json(self) -> dict[str, Any]:
        """All that is known; numbers that are not finite become text."""
        given = dataclasses.asdict(self)
        return {k: _plain(v) for k, v in given.items() if v not in (None, "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Figure:
        """The inverse of :meth:`to_json`."""
        texts = {"key", "control_name", "flag"}
        given: dict[str, Any] = {k: v if k in texts else float(v) for k, v in data.items()}
        return cls(**given)


def number(value: float | None) -> str:
    """Four significant digits, no exponent where it can be helped.

    >>> [number(v) for v in (-85.2134, 0.00123456, 1437.0, 3, float("inf"), None)]
    ['−85.21', '0.001235', '1,437', '3', '∞', '–']
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == round(value) and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return text.replace("-", "−")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or math.isfinite(value) else str(value)
