"""``weights``: how often each example should come in training, of a model of any kind: more of what
is rare."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from latlas.core.errors import ConfigError, say_option
from latlas.metrics import rarity
from latlas.render.text import counted
from latlas.run import Run, as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, Flag, Progress


@dataclass(eq=False, repr=False)
class ExampleWeights(common.Result):
    """A weight for every example, and how it came about.

    Attributes:
        weight: (n,) float64 at mean 1, the larger the rarer.
        rarity: (n, latent_dim) −log Q̂_i(z_i), nats, of each standardised latent dimension.
        method: ``own``, ``product`` or ``maximum``.
        effective_share: (Σw)² / (n Σw²).
        words: what was chosen, in one line.
        dimensions: the table has a column per latent dimension, too.
        names: (n,) of the examples' files, if they have any.
    """

    weight: Array
    rarity: Array
    method: str
    effective_share: float
    words: str
    dimensions: bool = False
    names: Any = None

    def as_columns(self) -> dict[str, Any]:
        each = {f"rarity_{i}": column for i, column in enumerate(self.rarity.T)}
        return {"example": common.titles(self.names, len(self.weight)), "weight": self.weight,
                **(each if self.dimensions else {})}

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.weight), "method": self.method,
                "effective_share": self.effective_share, "greatest": float(self.weight.max())}

    def text(self) -> str:
        return f"{counted(len(self.weight), 'example')}, method {self.method}\n{self.words}"


@common.verb
def weights(run: common.RunLike, data: common.DataLike = None, *, split: common.Split = None,
            method: Literal["auto", "own", "product", "maximum"] = "auto",
            within: Literal["auto", "class", "all"] = "auto",
            share: Annotated[float | None, common.AMOUNT] = None,
            clip: Annotated[float | None, common.AMOUNT] = None,
            bins: Annotated[int | None, common.Bounds(1, 1_000_000)] = None,
            alpha: Annotated[float | None, common.Bounds(0)] = None,
            dimensions: Annotated[bool, Flag(bool, "Also a column per latent dimension: how rare "
                                                   "the example is in it, nats.")] = False,
            out: Annotated[common.Out, common.Output(
                "weights.parquet", "A row per example: .csv, .parquet, .npz. Default: "
                "RUN/weights.parquet.")] = None,
            progress: Progress | None = None, **read: Any) -> ExampleWeights:
    """Weights by which rare examples come more often, for training a model of any kind.

    The examples are all of --data, or those the run was trained on. Weights are by the histograms
    of their latents, Q̂_i, or the model's own.

    Args:
        method: product: Π_i 1/(Q̂_i + alpha); maximum: max_i 1/(Q̂_i + alpha); own: as the model
            itself was trained; auto: own where there is one, else product.
        within: Densities among the examples of each class, or of all together; auto: by class
            where there are labels.
        share: Effective sample size that is kept, as a share of the examples. Default: 0.2.
        clip: Largest weight, times their mean. Default: 20.
        bins: Bins of a dimension's histogram. Default: 10.
        alpha: Added to every density. Default: the least that keeps the share.

    Raises:
        CapabilityError: no encoder. ConfigError: no such method, or a setting that it does not
            heed. DataError: fewer than 50 examples, latents that do not vary, missing labels.
    """
    from latlas.verbs.passes import encoded, in_order, inference

    run = as_run(run)
    run.require("encode", "weights")
    write.check_suffix(out)
    examples = run.open(data, split or ("train" if data is None else "all"), **read)
    label = examples.take("label")
    if within == "class" and label is None:
        raise ConfigError(f"{say_option('within', 'class')}: these examples have no labels that "
                          "the model knows", option="within")
    model: Any = run.model
    chosen = _method_of(run, method, share=share, clip=clip, bins=bins, alpha=alpha)
    latents = encoded(model, examples, progress)
    rarity.standardised(latents)  # refuses latents that do not vary
    density = rarity.densities(latents, None if within == "all" else label, bins or rarity.BINS)
    if chosen == "own":
        with inference(model):
            result = model.sampling_weights(in_order(model, examples))
        weight = result.values.numpy()
    else:
        result = rarity.guarded(density, chosen, share or rarity.SHARE, clip or rarity.CLIP, alpha)
        weight = result.weights
    weight = rarity.at_mean_one(weight)
    return ExampleWeights(weight, -np.log(density), chosen, rarity.effective_share(weight),
                          result.words, dimensions, examples.take("names")).saved(out)


def _method_of(run: Run, method: str, **settings: float | None) -> Any:
    """What ``auto`` stands for; refuses settings that the method does not heed."""
    from latlas.core.model import ReweightsData

    able = isinstance(run.model, ReweightsData) and run.model.reweighting_interval > 0
    if method == "own" and not able:
        raise ConfigError(f"{say_option('method', 'own')}: {run.model_name} weighs no data by "
                          "itself; use product or maximum", option="method")
    method = method if method != "auto" else "own" if able else "product"
    unused = [k for k, v in settings.items() if v is not None and method == "own"]
    if unused:
        raise ConfigError(f"{say_option(unused[0])} is for {say_option('method', 'product')} or "
                          "maximum; this model's own weights have the settings it was trained with",
                          option=unused[0])
    return method
