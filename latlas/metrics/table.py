"""The metrics by name, and a value of one of them: its error, its controls, its text."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from latlas.core.errors import say_number

#: groups of metrics, and what a model must be able to do for each, in the order of the tables
GROUPS = {"likelihood": "score", "reconstruction": "reconstruct", "translation": "translate",
          "classification": "classify", "encoding": "encode", "disentanglement": "encode",
          "latent-space": "decode", "samples": "sample"}


@dataclass(frozen=True)
class Kind:
    """What a metric is, whatever the model: title in tables, one of :data:`GROUPS`, its meaning.

    What is better is ``low``, ``high``, ``fair`` (near ``fair``, or near the control where that is
    not fixed), or nothing.
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


#: of each group: key to title, what is better, meaning and, where it is fixed, the fair value
_KINDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "likelihood": {
        "nats": ("log-likelihood (nats)", "high", "Mean log p(x) of held-out examples: how "
            "probable the model finds data it never saw (a lower bound unless exact)."),
        "bits_per_dim": ("bits per dimension", "low", "The same per scalar in bits: what an ideal "
            "coder with this model would need to store one."),
        "ess_median": ("ESS, median", "", "Effective sample size of the importance weights of the "
            "median example; under 10 the bound is loose."),
        "ess_min": ("ESS, lowest", "", "The same for the example with the smallest."),
        "elbo": ("ELBO (nats)", "high",
            "Evidence lower bound, the objective of a VAE: minus the two terms below."),
        "elbo_reconstruction": ("  reconstruction term", "",
            "−E log p(x|z): nats lost on an example given its latent vector."),
        "elbo_kl": ("  KL term", "",
            "KL(q(z|x) ‖ p(z)): nats that the latent vector carries about the example."),
    },
    "reconstruction": {
        "mse": ("squared error", "low", "Mean squared difference per scalar between held-out "
            "examples and their reconstruction, in the data's units."),
        "mse_unit": ("squared error, range 0–1", "low",
            "The same with the levels scaled to 0 … 1, to compare data of different depth."),
    },
    "translation": {
        "l1": ("absolute difference, range 0–1", "low", "Mean absolute difference per scalar "
            "between a translation and the image that belongs to it."),
        "psnr": ("PSNR (dB)", "high",
            "Peak signal-to-noise ratio: the mean squared difference on a logarithmic scale."),
        "ssim": ("SSIM", "high", "Structural similarity: do light, contrast and pattern agree, "
            "window by window? 1 for the same image."),
        "cycle": ("cycle-consistency error, range 0–1", "low", "Mean absolute difference between "
            "an example and its translation to the other domain and back."),
        "flicker": ("flicker, range 0–1", "low",
            "Mean absolute difference between a translated frame and the one before it, warped by "
            "the motion of the input; the control is the input's own."),
    },
    "classification": {
        "accuracy": ("accuracy", "high", "Share of held-out examples whose most probable class is "
            "right; the control predicts the commonest class for all."),
        "accuracy_worst": ("accuracy, worst class", "high",
            "The same of the class for which it is lowest."),
        "cross_entropy": ("cross-entropy (nats)", "low", "−log p(class|x), the mean over held-out "
            "examples; the control predicts the shares of the classes."),
    },
    "encoding": {
        "active_units": ("active units", "", "Latent dimensions whose mean varies over the data by "
            "more than 0.01; the others are inactive and carry nothing."),
        "latent_dim": ("latent dimensions", "", "Width of the latent vector."),
    },
    "disentanglement": {
        "mig": ("MIG", "high", "Mutual information gap: how much more the best dimension tells of "
            "a factor than the second best, as a share of all there is to tell."),
        "dci_disentanglement": ("DCI disentanglement", "high",
            "Does each dimension serve one factor only? By the importances of a random forest."),
        "dci_completeness": ("DCI completeness", "high",
            "Is each factor served by one dimension only? By the same forest."),
        "dci_informativeness": ("DCI informativeness", "high", "Balanced accuracy of the forest on "
            "other examples: what the latents know of the factors, entangled or not."),
        "sap": ("SAP", "high", "Separated attribute predictability: how much better thresholds on "
            "the best dimension predict a factor than on the second best."),
        "factor_vae_score": ("FactorVAE score", "high", "How often the dimension that varies least "
            "names the factor that was fixed; one over the number of factors is chance."),
        "beta_vae_score": ("BetaVAE score", "high",
            "How often a linear classifier names the factor that pairs of examples share; it "
            "hardly tells good latents apart, see the control."),
        "modularity": ("modularity", "high", "Does each dimension tell of one factor only? By "
            "mutual information; a dimension may share its factor with others."),
    },
    "latent-space": {
        "completeness": ("completeness", "high", "Share of prior draws that decode to something "
            "where held-out examples lie densely; fresh real data gets about a half. One likely "
            "example repeated has it too: read it with coverage and active units."),
        "slope_median": ("decoder slope, median", "",
            "How far the decoded example moves per standard deviation of the prior, in distances "
            "between neighbouring real examples; 0 if the latent vector is ignored."),
        "slope_high": ("decoder slope, p99", "",
            "The same at the steepest places: the 99th percentile."),
        "lipschitz_ratio": ("Lipschitz ratio, p99 / median", "low",
            "How much faster the decoded example changes at steep places: 1 is perfectly even."),
        "largest_jump": ("largest jump", "low",
            "Longest of 64 steps between two draws of the prior, in distances between neighbouring "
            "examples; a cross-fade of the ends is the shortest way."),
        "information": ("I(x; z) (nats)", "", "What the latents tell of which example it was: the "
            "useful part of the KL; never above log n."),
        "information_upper": ("  upper estimate", "", "The same with an example's own posterior "
            "left out: the population's value lies between the two."),
        "marginal_kl": ("KL(q(z) ‖ p(z)) (nats)", "low", "How far the latents of all examples "
            "together (the aggregate posterior) are from the prior that samples are drawn from."),
        "total_correlation": ("total correlation (nats)", "low",
            "How much the latent dimensions tell of each other; 0 if they are independent."),
        "linear_tc": ("  total correlation, linear part", "low",
            "−½ log|R| of the latents' correlations: what few examples suffice to see."),
        "dimension_kl": ("KL of dimensions (nats)", "low",
            "Σ_j KL(q(z_j) ‖ p(z_j)): each dimension by itself against the prior; with the total "
            "correlation it makes up KL(q(z) ‖ p(z))."),
    },
    "samples": {
        "frechet": ("Fréchet distance", "low",
            "Distance between Gaussians fitted to features of samples and of real examples; the "
            "control shows what the number of examples alone gives."),
        "kernel": ("kernel distance", "low",
            "Maximum mean discrepancy of the features; 0 is expected of real data.", 0.0),
        "sliced": ("sliced Wasserstein", "low", "Mean distance of the features along random "
            "directions; the control shows what the number of examples alone gives."),
        "precision": ("precision", "high",
            "Share of samples that lie among the real examples: do they look real?"),
        "recall": ("recall", "high",
            "Share of real examples that lie among the samples: does every kind occur?"),
        "density": ("density", "high",
            "How densely real examples surround the samples; about 1 for real data.", 1.0),
        "coverage": ("coverage", "high", "Share of real examples with a sample near them."),
        "two_sample": ("1-NN accuracy", "fair",
            "How well a nearest neighbour tells samples from real: 0.5 not at all, 1 always.", 0.5),
        "two_sample_p": ("1-NN p-value", "", "How often chance alone is as far from 0.5."),
        "data_copying": ("data-copying test C_T", "fair",
            "Are samples nearer to training examples than fresh real ones are? Under −3: yes, the "
            "model copies; over 3: they are farther off than real ones.", 0.0),
        "near_copies": ("near copies", "low", "Share of samples as near to a training example as "
            "the nearest 1% of real examples; 0.01 is fair.", 0.01),
        "nearest_ratio": ("nearest-train ratio", "fair", "Distance to the nearest training "
            "example, samples over real examples: 1 is fair, 0 is a copy.", 1.0),
        "authenticity": ("authenticity", "fair",
            "Share of samples farther from their nearest training example than that example is "
            "from its own neighbour; 0 is copying, real data shows what is fair."),
        "modes": ("modes covered", "high",
            "How many classes of the data are among the samples: by the balls of three standard "
            "deviations around their means (points), else by the classifier."),
        "mode_kl": ("KL of mode frequencies (nats)", "low", "How far the frequencies of the "
            "classes among the samples are from those among the training examples.", 0.0),
        "high_quality": ("high-quality samples", "high",
            "Share of samples within three standard deviations of the nearest class mean."),
        "diversity": ("diversity within classes", "fair",
            "Mean distance of two samples that are classified alike, over that of two real "
            "examples; 0 if every class is one example repeated.", 1.0),
        "label_accuracy": ("label accuracy of samples", "high",
            "Share of samples that the classifier puts in the class they were drawn for."),
        "examples": ("examples per set", "",
            "How many samples and how many real examples the metrics of this group compare."),
    },
}
KINDS = {key: Kind(title, group, better, meaning, *fair) for group, rows in _KINDS.items()
         for key, (title, better, meaning, *fair) in rows.items()}


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


def number(value: float | None) -> str:
    """Four significant digits, no exponent where it can be helped.

    >>> [number(v) for v in (-85.2134, 0.00123456, 1437.0, 3, float("inf"), None)]
    ['−85.21', '0.001235', '1,437', '3', '∞', '–']
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    whole = value == round(value) or abs(value) >= 1e4
    return (f"{value:,.0f}" if whole else say_number(value, 4)).replace("-", "−")
