"""The metrics by name, and a value of one of them: its error, its controls, its text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: groups of metrics, and what a model must be able to do for each, in the order of the tables
GROUPS = {"likelihood": "score", "reconstruction": "reconstruct", "translation": "translate",
          "classification": "classify", "encoding": "encode", "disentanglement": "encode",
          "latent-space": "decode", "samples": "sample"}


@dataclass(frozen=True)
class Kind:
    """What a metric is, whatever the model.

    Attributes:
        title: its name in tables.
        group: one of :data:`GROUPS`.
        better: ``low``, ``high``, ``fair`` (near ``fair``, or near the control where that is not
            fixed), or nothing.
        meaning: one sentence.
    """

    title: str
    group: str
    better: str
    meaning: str
    fair: float | None = None

    @property
    def heading(self) -> str:
        """The group as a heading: ``Latent space``."""
        return self.group.replace("-", " ").capitalize()


KINDS: dict[str, Kind] = {
    "nats": Kind("log-likelihood (nats)", "likelihood", "high",
                 "Mean log p(x) of held-out examples: how probable the model finds data it never "
                 "saw (a lower bound unless exact)."),
    "bits_per_dim": Kind("bits per dimension", "likelihood", "low",
                         "The same per scalar in bits: what an ideal coder with this model would "
                         "need to store one."),
    "ess_median": Kind("ESS, median", "likelihood", "",
                       "Effective sample size of the importance weights of the median example; "
                       "under 10 the bound is loose."),
    "ess_min": Kind("ESS, lowest", "likelihood", "",
                    "The same for the example with the smallest."),
    "elbo": Kind("ELBO (nats)", "likelihood", "high",
                 "Evidence lower bound, the objective of a VAE: minus the two terms below."),
    "elbo_reconstruction": Kind("  reconstruction term", "likelihood", "",
                                "−E log p(x|z): nats lost on an example given its latent vector."),
    "elbo_kl": Kind("  KL term", "likelihood", "",
                    "KL(q(z|x) ‖ p(z)): nats that the latent vector carries about the example."),
    "mse": Kind("squared error", "reconstruction", "low",
                "Mean squared difference per scalar between held-out examples and their "
                "reconstruction, in the data's units."),
    "mse_unit": Kind("squared error, range 0–1", "reconstruction", "low",
                     "The same with the levels scaled to 0 … 1, to compare data of different "
                     "depth."),
    "l1": Kind("absolute difference, range 0–1", "translation", "low",
               "Mean absolute difference per scalar between a translation and the image that "
               "belongs to it."),
    "psnr": Kind("PSNR (dB)", "translation", "high",
                 "Peak signal-to-noise ratio: the mean squared difference on a logarithmic scale."),
    "ssim": Kind("SSIM", "translation", "high",
                 "Structural similarity: do light, contrast and pattern agree, window by window? 1 "
                 "for the same image."),
    "cycle": Kind("cycle-consistency error, range 0–1", "translation", "low",
                  "Mean absolute difference between an example and its translation to the other "
                  "domain and back."),
    "flicker": Kind("flicker, range 0–1", "translation", "low",
                    "Mean absolute difference between a translated frame and the one before it, "
                    "warped by the motion of the input; the control is the input's own."),
    "accuracy": Kind("accuracy", "classification", "high",
                     "Share of held-out examples whose most probable class is right; the control "
                     "predicts the commonest class for all."),
    "accuracy_worst": Kind("accuracy, worst class", "classification", "high",
                           "The same of the class for which it is lowest."),
    "cross_entropy": Kind("cross-entropy (nats)", "classification", "low",
                          "−log p(class|x), the mean over held-out examples; the control predicts "
                          "the shares of the classes."),
    "active_units": Kind("active units", "encoding", "",
                         "Latent dimensions whose mean varies over the data by more than 0.01; the "
                         "others are inactive and carry nothing."),
    "latent_dim": Kind("latent dimensions", "encoding", "", "Width of the latent vector."),
    "mig": Kind("MIG", "disentanglement", "high",
                "Mutual information gap: how much more the best dimension tells of a factor than "
                "the second best, as a share of all there is to tell."),
    "dci_disentanglement": Kind("DCI disentanglement", "disentanglement", "high",
                                "Does each dimension serve one factor only? By the importances of "
                                "a random forest."),
    "dci_completeness": Kind("DCI completeness", "disentanglement", "high",
                             "Is each factor served by one dimension only? By the same forest."),
    "dci_informativeness": Kind("DCI informativeness", "disentanglement", "high",
                                "Balanced accuracy of the forest on other examples: what the "
                                "latents know of the factors, entangled or not."),
    "sap": Kind("SAP", "disentanglement", "high",
                "Separated attribute predictability: how much better thresholds on the best "
                "dimension predict a factor than on the second best."),
    "factor_vae_score": Kind("FactorVAE score", "disentanglement", "high",
                             "How often the dimension that varies least names the factor that "
                             "was fixed; one over the number of factors is chance."),
    "beta_vae_score": Kind("BetaVAE score", "disentanglement", "high",
                           "How often a linear classifier names the factor that pairs of examples "
                           "share; it hardly tells good latents apart, see the control."),
    "modularity": Kind("modularity", "disentanglement", "high",
                       "Does each dimension tell of one factor only? By mutual information; a "
                       "dimension may share its factor with others."),
    "completeness": Kind("completeness", "latent-space", "high",
                         "Share of prior draws that decode to something where held-out examples "
                         "lie densely; fresh real data gets about a half. One likely example "
                         "repeated has it too: read it with coverage and active units."),
    "slope_median": Kind("decoder slope, median", "latent-space", "",
                         "How far the decoded example moves per standard deviation of the prior, "
                         "in distances between neighbouring real examples; 0 if the latent vector "
                         "is ignored."),
    "slope_high": Kind("decoder slope, p99", "latent-space", "",
                       "The same at the steepest places: the 99th percentile."),
    "lipschitz_ratio": Kind("Lipschitz ratio, p99 / median", "latent-space", "low",
                            "How much faster the decoded example changes at steep places: 1 is "
                            "perfectly even."),
    "largest_jump": Kind("largest jump", "latent-space", "low",
                         "Longest of 64 steps between two draws of the prior, in distances between "
                         "neighbouring examples; a cross-fade of the ends is the shortest way."),
    "information": Kind("I(x; z) (nats)", "latent-space", "",
                        "What the latents tell of which example it was: the useful part of the KL; "
                        "never above log n."),
    "information_upper": Kind("  upper estimate", "latent-space", "",
                              "The same with an example's own posterior left out: the population's "
                              "value lies between the two."),
    "marginal_kl": Kind("KL(q(z) ‖ p(z)) (nats)", "latent-space", "low",
                        "How far the latents of all examples together (the aggregate posterior) "
                        "are from the prior that samples are drawn from."),
    "total_correlation": Kind("total correlation (nats)", "latent-space", "low",
                              "How much the latent dimensions tell of each other; 0 if they are "
                              "independent."),
    "linear_tc": Kind("  total correlation, linear part", "latent-space", "low",
                      "−½ log|R| of the latents' correlations: what few examples suffice to see."),
    "dimension_kl": Kind("KL of dimensions (nats)", "latent-space", "low",
                         "Σ_j KL(q(z_j) ‖ p(z_j)): each dimension by itself against the prior; "
                         "with the total correlation it makes up KL(q(z) ‖ p(z))."),
    "frechet": Kind("Fréchet distance", "samples", "low",
                    "Distance between Gaussians fitted to features of samples and of real "
                    "examples; the control shows what the number of examples alone gives."),
    "kernel": Kind("kernel distance", "samples", "low",
                   "Maximum mean discrepancy of the features; 0 is expected of real data.", 0.0),
    "sliced": Kind("sliced Wasserstein", "samples", "low",
                   "Mean distance of the features along random directions; the control shows what "
                   "the number of examples alone gives."),
    "precision": Kind("precision", "samples", "high",
                      "Share of samples that lie among the real examples: do they look real?"),
    "recall": Kind("recall", "samples", "high",
                   "Share of real examples that lie among the samples: does every kind occur?"),
    "density": Kind("density", "samples", "high",
                    "How densely real examples surround the samples; about 1 for real data.", 1.0),
    "coverage": Kind("coverage", "samples", "high",
                     "Share of real examples with a sample near them."),
    "two_sample": Kind("1-NN accuracy", "samples", "fair",
                       "How well a nearest neighbour tells samples from real: 0.5 not at all, 1 "
                       "always.", 0.5),
    "two_sample_p": Kind("1-NN p-value", "samples", "",
                         "How often chance alone is as far from 0.5."),
    "data_copying": Kind("data-copying test C_T", "samples", "fair",
                         "Are samples nearer to training examples than fresh real ones are? Under "
                         "−3: yes, the model copies; over 3: they are farther off than real ones.",
                         0.0),
    "near_copies": Kind("near copies", "samples", "low",
                        "Share of samples as near to a training example as the nearest 1% of real "
                        "examples; 0.01 is fair.", 0.01),
    "nearest_ratio": Kind("nearest-train ratio", "samples", "fair",
                          "Distance to the nearest training example, samples over real examples: 1 "
                          "is fair, 0 is a copy.", 1.0),
    "authenticity": Kind("authenticity", "samples", "fair",
                         "Share of samples farther from their nearest training example than that "
                         "example is from its own neighbour; 0 is copying, real data shows what is "
                         "fair."),
    "modes": Kind("modes covered", "samples", "high",
                  "How many classes of the data are among the samples: by the balls of three "
                  "standard deviations around their means (points), else by the classifier."),
    "mode_kl": Kind("KL of mode frequencies (nats)", "samples", "low",
                    "How far the frequencies of the classes among the samples are from those among "
                    "the training examples.", 0.0),
    "high_quality": Kind("high-quality samples", "samples", "high",
                         "Share of samples within three standard deviations of the nearest "
                         "class mean."),
    "diversity": Kind("diversity within classes", "samples", "fair",
                      "Mean distance of two samples that are classified alike, over that of two "
                      "real examples; 0 if every class is one example repeated.", 1.0),
    "label_accuracy": Kind("label accuracy of samples", "samples", "high",
                           "Share of samples that the classifier puts in the class they were "
                           "drawn for."),
    "examples": Kind("examples per set", "samples", "",
                     "How many samples and how many real examples the metrics of this group "
                     "compare."),
}


@dataclass(frozen=True)
class Metric:
    """A value of one of :data:`KINDS`.

    Attributes:
        error: standard error of the value.
        control: the same metric of what could explain the value: held-out real data for samples,
            a diagonal Gaussian for likelihoods, the training mean for reconstructions.
        training_copies: the same metric of exact copies of training examples.
        flag: a few words where the value cannot be relied on or compared.
        ceiling: the same metric of the best there could be: of the known factors as latents.
    """

    key: str
    value: float
    error: float | None = None
    control: float | None = None
    control_name: str = ""
    training_copies: float | None = None
    flag: str = ""
    ceiling: float | None = None

    @property
    def kind(self) -> Kind:
        """Title, group, direction and meaning."""
        return KINDS[self.key]

    def text(self) -> str:
        """``−85.21 ± 0.24``: the error to two digits, the value as far as the error lets it."""
        if not self.error or not math.isfinite(self.error) or not math.isfinite(self.value):
            return number(self.value)
        places = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:,.{places}f} ± {self.error:,.{places}f}".replace("-", "−")

    def to_json(self) -> dict[str, Any]:
        """What is not empty; numbers that are not finite become text."""
        return {k: v if isinstance(v, str) or math.isfinite(v) else str(v)
                for k, v in dataclasses.asdict(self).items() if v not in (None, "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metric:
        """The inverse of :meth:`to_json`."""
        words = {"key", "control_name", "flag"}
        values: dict[str, Any] = {k: v if k in words else float(v) for k, v in data.items()}
        return cls(**values)


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
