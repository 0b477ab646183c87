"""The few abstractions: a batch, a model, its phases, its loss, and what it can do.

A model knows its maths and no optimiser; what it can do is a protocol, never a method that raises.
"""

from abc import ABC
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch as Batch
from latlas.core.batch import PairBatch as PairBatch
from latlas.core.distributions import Distribution
from latlas.core.noise import Noise
from latlas.core.space import Space


@dataclass(frozen=True)
class Phase:
    """One optimiser step, of the modules that share a loss."""
    name: str  # what ``losses`` yields with the loss
    modules: tuple[str, ...]  # attributes of the model whose parameters are trained
    every: int = 1  # a lazy penalty runs every k-th step, its loss times k
    betas: tuple[float, float] | None = None  # Adam's decay rates, where they are not training's
    span: tuple[float, float] = (0.0, 1.0)  # shares of the budget: its learning rate rises, falls


@dataclass
class Loss:
    """``total`` is differentiated; ``terms`` are scalars for the log, in stated units."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass
class Step:
    """Where training stands."""

    index: int  # optimisation steps done
    images: int  # examples seen
    progress: float  # share of the budget spent, 0 … 1
    noise: Noise  # this step's random draws
    n_train: int = 0  # size of the training set; 0 where it is not known
    parts: int = 1  # that this process's examples are cut into; a loss is of one of them

    def due(self, interval: int) -> bool:
        """Whether what happens every so many steps happens in this one."""
        return self.index % interval == 0

    def before(self, share: float) -> bool:
        """Whether less than this share of the budget is spent."""
        return self.progress < share

    def past(self, images: int) -> bool:
        """Whether at least so many examples were seen."""
        return self.images >= images

    def share_of(self, share: float) -> float | Tensor:
        """How much of this share of the budget is spent, 0 … 1: a number, or a tensor of one where
        a CUDA graph is captured, whose numbers are the same in all steps."""
        return min(1.0, self.progress / share)


@dataclass(frozen=True)
class TrainingDefaults:
    """How the engine trains a model where the person asks for nothing else.

    Attributes:
        learning_rate: Adam's, at its peak.
        min_batch_size, max_batch_size, min_images: bounds of what is chosen by the data's size.
        batch_multiple: the config's option, if any, that a batch size must be a multiple of.
        ema_modules: attributes whose weights are averaged (EMA); empty for all parameters.
        needs_fp32: bf16 is not tried: three digits are too few for what the networks give.
        needs_float64: training takes numbers of 64 bits, which MPS has not.
        monitored: training may diverge: the engine looks at samples, warns and rolls back.
        progressive: a step costs more late in training than early.
        large_image_epochs: passes over the data that make a size above 64 pixels worth choosing.
        prior_share: of the budget, for a prior that is fitted to the latents of images; 0: none.
    """

    learning_rate: float = 1e-3
    min_batch_size: int = 0
    max_batch_size: int = 0
    min_images: int = 0
    batch_multiple: str = ""
    ema_modules: tuple[str, ...] = ()
    needs_fp32: bool = False
    needs_float64: bool = False
    monitored: bool = False
    progressive: bool = False
    large_image_epochs: float = 10.0
    prior_share: float = 0.0


class Prior(Protocol):
    """A density of latent vectors, nats."""

    def log_prob(self, z: Tensor) -> Tensor: ...

    def sample(self, n: int, noise: Noise) -> Tensor: ...


class Model(nn.Module, ABC):
    """Networks, config and space. Subclasses add protocols below.

    Attributes:
        Config: dataclass of the model's options; ``config`` are those that its ``resolve`` gives.
        defaults: how the engine trains it; an instance may replace those of its class.
        needs: data of two sides: ``pairs`` that belong together, or two ``domains``.
        exact_likelihood: ``log_likelihood`` is no estimate.
        takes_condition: the ``label`` of an example or a ``part`` of it, of size ``condition_dim``.
        fitted_prior: a second prior, fitted to the latents; of labels it takes a ``condition``.
    """

    Config: ClassVar[type]
    latent_dim: int
    defaults: TrainingDefaults = TrainingDefaults()
    needs: Literal["pairs", "domains"] | None = None
    exact_likelihood: bool = False
    takes_condition: Literal["label", "part"] | None = None
    condition_dim: int = 0

    def __init__(self, config: Any, space: Space) -> None:
        super().__init__()
        self.config = config
        self.space = space
        self.fitted_prior: Any = None

    @property
    def prior(self) -> Prior | None:
        """The density of latents that a subclass assigns, or overrides this with, if any."""
        return self._modules.get("prior")  # type: ignore[return-value]

    @property
    def base_measure(self) -> str | None:
        """What the likelihood is of (``integers``, …), if any; only equal ones are compared."""
        return None

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """Every phase that is due, by name, with its loss. The engine moves the modules of a phase
        by its loss before it asks for the next one."""
        yield self.phases[0].name, self.loss(batch, step)  # type: ignore[operator, index, union-attr]

    def describe(self, n_train: int) -> str:
        """What was chosen for this data, for the line that is shown before the first step."""
        return ""

    def warnings(self, n_train: int) -> list[str]:
        """What will hardly work well with so many training examples; each says what to do."""
        return []

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Take from the data what has to be known before the first step, nothing here; ``batches``
        hold each of the ``n_train`` examples once and can be swept again."""

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """What this batch is conditioned on; ``None`` for a model that takes no condition."""
        return batch.condition

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = chain(self.parameters(), self.buffers())
        return next((t.device for t in tensors), torch.device("cpu"))


@runtime_checkable
class Trains(Protocol):
    """Trained by gradient."""

    @property
    def phases(self) -> tuple[Phase, ...]: ...

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]: ...


@runtime_checkable
class Validates(Protocol):
    """Its loss on held-out data decides which weights are kept."""

    def loss(self, batch: Batch, step: Step) -> Loss: ...


@runtime_checkable
class AfterStep(Protocol):
    """Updates buffers once a step (replay buffer, ADA); must not sync the device."""

    def after_step(self, step: Step, terms: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Weights:
    """How often each training example shall come: ``values`` (N,), at least 0, relative to one
    another, in the order of the data; ``metrics`` for the log, ``words`` for the terminal."""

    values: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    words: str = ""


@runtime_checkable
class ReweightsData(Protocol):
    """Says how often each training example shall come, anew after every ``reweighting_interval``.

    The interval is a share of the budget, 0 for never; until it has passed, examples come equally
    often. The averaged model is asked, with every training example once, in order.
    """

    @property
    def reweighting_interval(self) -> float: ...

    def sampling_weights(self, batches: Iterable[Batch]) -> Weights: ...


@runtime_checkable
class FitsDirectly(Protocol):
    """Closed form. ``batches`` may be swept several times; each sweep is in order, whole."""

    def fit(self, batches: Iterable[Batch]) -> None: ...


@runtime_checkable
class Finishes(Protocol):
    """One sweep over the training data after the last step (an AE fits its latents' Gaussian)."""

    def finish(self, batches: Iterable[Batch]) -> None: ...


@runtime_checkable
class Samples(Protocol):
    """Draws new examples, (n, *shape) in model units."""

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class SamplesLatents(Protocol):
    """Draws the latents of new examples itself, (n, latent_dim), as they depend on a condition."""

    def sample_latents(self, n: int, *, noise: Noise,
                       condition: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Encodes(Protocol):
    """Data to latents: (n, *shape) to a distribution over (n, latent_dim)."""

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Distribution: ...


@runtime_checkable
class HasInitialLatents(Protocol):
    """Where latent optimisation starts if nothing encodes: (n, latent_dim), or none."""

    def initial_latents(self, x: Tensor, *, noise: Noise,
                        condition: Tensor | None = None) -> Tensor | None: ...


@runtime_checkable
class Classifies(Protocol):
    """Examples to classes: (n, *shape) to log-probabilities (n, classes), nats."""

    def classify(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Decodes(Protocol):
    """Latents to data: (*batch, latent_dim) to a distribution over (*batch, *shape)."""

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution: ...


@runtime_checkable
class HasLayers(Protocol):
    """Its flat latent vector is several layers in a row, first the one that is decoded."""

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]: ...

    def fill_lower_layers(self, z: Tensor, layer: int) -> Tensor:
        """The latents with all layers below ``layer`` (from 0) at their means given it."""


@runtime_checkable
class HasStyles(Protocol):
    """Its decoder reads w, a style that is made from the latents z, anew in every layer.

    Styles w are (n, d_w), one for all layers, or (n, layers, d_w). ``layer_sizes`` are the image
    sizes (H, W) that the layers work towards, the coarsest first.
    """

    @property
    def layer_sizes(self) -> tuple[tuple[int, int], ...]: ...

    def to_w(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Latents (n, latent_dim) to (n, d_w), taken towards the mean: w̄ + ψ (w − w̄)."""

    def mean_w(self) -> Tensor:
        """w̄, (d_w,): the mean over the prior of latents."""

    def mix(self, first: Tensor, second: Tensor, level: int | Tensor) -> Tensor:
        """(n, d_w) twice to (n, layers, d_w): the first below ``level``, then the second."""

    def decode_w(self, w: Tensor, *, noise: Noise | None = None) -> Distribution:
        """Images (n, *shape); the grain is drawn from ``noise``, or is the same every time."""

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None,
               truncation: float = 1.0) -> Tensor: ...


@runtime_checkable
class HasFlow(Protocol):
    """Carries noise (n, latent_dim) to latents, from time 0 to 1, and back, from 1 to 0."""

    def transport(self, z: Tensor, start: float = 0.0, end: float = 1.0,
                  condition: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Charts(Protocol):
    """An atlas: ``n_charts`` decoders, each a chart of a part of the data, with one latent space
    each. The way from chart j to chart k is ``encode_chart(decode_chart(j, z).mean, k)``."""

    n_charts: int

    def decode_chart(self, k: int, z: Tensor) -> Distribution:
        """Latents (*batch, width) of chart k to a distribution over (*batch, *shape)."""

    def responsibilities(self, x: Tensor) -> Tensor:
        """(n, n_charts): how far each chart is in charge of an example; rows sum to 1."""

    def encode_chart(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Charts (n,) int64 and latents in them (n, width): in chart k, or the one in charge."""


@runtime_checkable
class Observes(Protocol):
    """Latents have a likelihood: log p(x|z), (K, n) nats in data units, of latents (K, n, d) or,
    shared, (K, 1, d) and examples (n, *shape), preprocessed: binarised or dequantised."""

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor: ...

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class BoundsDensity(Protocol):
    """The ELBO per example, mean of ``draws`` draws of z, nats in data units, each (n,): ``bound``,
    its standard error ``se`` (NaN for one draw), and the parts ``reconstruction`` and ``kl``."""

    def elbo(self, x: Tensor, *, noise: Noise, draws: int = 1,
             condition: Tensor | None = None) -> dict[str, Tensor]: ...


@runtime_checkable
class ScoresDensity(Protocol):
    """Log-likelihood per example, nats in data units, and its effective sample size."""

    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Translates(Protocol):
    """Images (n, *shape) of one domain to those (n, *shape of ``to``) of a domain in ``ways``."""

    @property
    def ways(self) -> tuple[str, ...]: ...

    def translate(self, x: Tensor, *, to: str = "B", noise: Noise | None = None) -> Tensor: ...


#: what a person can ask of a model, and the protocols behind it
CAPABILITIES: dict[str, tuple[type, ...]] = {
    "sample": (Samples,), "encode": (Encodes,), "decode": (Decodes,),
    "reconstruct": (Encodes, Decodes), "score": (ScoresDensity,), "classify": (Classifies,),
    "mix": (HasStyles,), "translate": (Translates,)}


def capabilities(model: type[Model]) -> frozenset[str]:
    """What a person can ask of a class of models, by its methods."""
    return frozenset(name for name, protocols in CAPABILITIES.items() if all(
        hasattr(model, member) for protocol in protocols for member in vars(protocol)
        if not member.startswith("_")))
