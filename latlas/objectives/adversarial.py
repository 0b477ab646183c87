"""Adversarial losses, and penalties on gradients, as functions of the discriminator's outputs.

``real`` and ``fake`` are logits of D, (n,), for as many real examples as generated ones; where an
objective speaks of a probability, it is σ of the logit. Losses are in nats where logarithms are
taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.errors import ConfigError, unknown
from latlas.core.model import Phase, Step
from latlas.core.noise import Noise

#: examples (n, *shape) to D's outputs: (n, 1 + others), or (n, patches)
Discriminate = Callable[[Tensor], Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """The losses of discriminator and generator, functions of logits (real, fake), (n,) to (n,).

    Attributes:
        generator_uses_real: the generator's loss depends on the real examples too.
        shift_invariant: a number added to all logits changes nothing.
    """

    discriminator: LossFunction
    generator: LossFunction
    generator_uses_real: bool = False
    shift_invariant: bool = False


_BUILT_IN: dict[str, Objective] = {
    # −log σ(D(x) − D(G(z))) and −log σ(D(G(z)) − D(x)) of the k-th real example and the k-th fake
    # (Jolicoeur-Martineau 2019, eq. 5 and 6): a fake has to look more real than a real example, so
    # a mode that the generator drops keeps its pull (Sun et al. 2020)
    "relativistic": Objective(lambda real, fake: F.softplus(fake - real),
                              lambda real, fake: F.softplus(real - fake),
                              generator_uses_real=True, shift_invariant=True),
    # −log D(x) − log(1 − D(G(z))) and −log D(G(z)) (Goodfellow et al. 2014, section 3)
    "non-saturating": Objective(lambda real, fake: F.softplus(-real) + F.softplus(fake),
                                lambda real, fake: F.softplus(-fake)),
    # the same, and log(1 − D(G(z))) (Goodfellow et al. 2014, eq. 1)
    "minimax": Objective(lambda real, fake: F.softplus(-real) + F.softplus(fake),
                         lambda real, fake: -F.softplus(fake)),
    "least-squares": Objective(  # Mao et al. 2017, eq. 9
        lambda real, fake: 0.5 * ((real - 1).square() + fake.square()),
        lambda real, fake: 0.5 * (fake - 1).square()),
    "hinge": Objective(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
                       lambda real, fake: -fake),  # Lim & Ye 2017, eq. 7 and 8
    "wasserstein": Objective(lambda real, fake: fake - real, lambda real, fake: -fake,
                             shift_invariant=True),  # Arjovsky et al. 2017, eq. 3
}
#: the names of the objectives that latlas has
OBJECTIVES = tuple(_BUILT_IN)
_registered: dict[str, Objective] = {}


def register_objective(name: str, objective: Objective) -> None:
    """Make an objective known as ``objective=NAME`` to every adversarial model of this process;
    ConfigError for a name of latlas's own."""
    if name in _BUILT_IN:
        raise ConfigError(f"objective {name!r} is one of latlas's own; choose another name")
    _registered[name] = objective


def find_objective(objective: str | Objective) -> Objective:
    """The objective of a name, or the objective itself; ConfigError for an unknown name."""
    if isinstance(objective, Objective):
        return objective
    objectives = _BUILT_IN | _registered
    if objective not in objectives:
        raise ConfigError(unknown("objective", objective, objectives))
    return objectives[objective]


def discriminator_loss(objective: str | Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss on logits of real examples and of fakes, mean over examples."""
    return find_objective(objective).discriminator(real, fake).mean()


def generator_loss(objective: str | Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The generator's loss, mean; ``real`` matters where ``generator_uses_real``."""
    return find_objective(objective).generator(real, fake).mean()


def gradient_penalty(kind: str, discriminator: Callable[..., Sequence[Tensor]],
                     d_inputs: Sequence[Tensor], noise: Noise,
                     logits: Sequence[Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """A penalty on the gradient of D by its input, to be weighted by γ, and its parts for the log.

    ``r1`` is ½ E ‖∇D(x)‖² over real examples (Mescheder et al. 2018, eq. 9), ``r2`` the same over
    fakes (eq. 10), ``r1+r2`` the sum, of one backward pass; ``gp`` is E (‖∇D(x̂)‖ − 1)² at points
    x̂ on the lines between both (Gulrajani et al. 2017, eq. 3). Gradients are reduced in fp32, and
    the result can be differentiated. A logit must depend on its own example alone.

    Args:
        discriminator: D's logits for each of the inputs it is called with.
        d_inputs: real examples and fakes as D sees them; they require a gradient.
        logits: D's logits at both, if it has run; otherwise it runs where the penalty is taken.
    """
    if kind == "gp":
        real, fake = (x.detach() for x in d_inputs)
        share = noise.uniform(len(real)).to(real).view(-1, *[1] * (real.dim() - 1))
        between = torch.lerp(real, fake, share).requires_grad_()
        squares, = squared_gradients(discriminator(between), [between])
        penalty = ((squares + 1e-12).sqrt() - 1).square().mean()
        return penalty, {"gp": penalty}
    chosen = [k for k, part in enumerate(("r1", "r2")) if part in kind]
    inputs = [d_inputs[k] for k in chosen]
    outputs = discriminator(*inputs) if logits is None else [logits[k] for k in chosen]
    parts = [squares.mean() for squares in squared_gradients(outputs, inputs)]
    return 0.5 * torch.stack(parts).sum(), dict(zip(kind.split("+"), parts, strict=True))


def squared_gradients(logits: Sequence[Tensor], d_inputs: Sequence[Tensor]) -> list[Tensor]:
    """‖∇_x D(x)‖² of every example, (n,) float32, from D's outputs at each input (n, *shape)."""
    gradients = torch.autograd.grad([out.sum() for out in logits], list(d_inputs),
                                    create_graph=True)
    return [gradient.float().square().flatten(1).sum(1) for gradient in gradients]


def ada_signal(real: Tensor, fake: Tensor) -> Tensor:
    """How sure D is of real examples, −1 … 1: E sign(D(x) − m), m half-way between both means. r_t
    of Karras et al. (2020b, eq. 1) has m = 0, which means nothing to a relativistic D."""
    middle = 0.5 * (real.mean() + fake.mean())
    return (real - middle).sign().mean()


class AdversarialLoss:
    """What discriminator and generator minimise by a config, and the gradient penalty of D.

    The penalty is part of D's loss (``every_step``), or a phase of its own at every
    ``interval``-th step (lazy; Karras et al. 2020, appendix B). γ falls geometrically to
    ``gamma_end`` of itself over the budget: it is to D's gradient what a squared length is to the
    data, so every scale gets the same time. D sees real examples and fakes in one batch
    (``concat_real_fake``), but not where the gradient at one kind alone would go back through both.

    Args:
        objective: in place of the one that the config names.
        patches: all of D's outputs say how real an example is, not the first alone.
    """

    def __init__(self, config: Any, objective: Objective | None = None,
                 patches: bool = False) -> None:
        self.objective = objective or find_objective(config.objective)
        self.name = config.objective if objective is None else "own objective"
        self.kind, self.gamma, self.gamma_end = config.penalty, config.gamma, config.gamma_end
        self.interval, self.patches = config.r1_interval, patches
        penalised = self.kind != "none" and self.gamma > 0
        self.every_step = penalised and self.interval == 1
        self.lazy = penalised and self.interval > 1
        self.concat_real_fake = not (self.every_step and self.kind in ("r1", "r2"))

    def phases(self, name: str, *modules: str) -> tuple[Phase, ...]:
        """The phase of the discriminators in ``modules``, and of their penalty where it is lazy."""
        lazy = Phase("penalty", modules, every=self.interval)
        return (Phase(name, modules), *((lazy,) if self.lazy else ()))

    def describe(self) -> str:
        """Objective, and gradient penalty with its weight at the start and at the end."""
        if not (self.every_step or self.lazy):
            return f"{self.name}, no penalty"
        return (f"{self.name}, {self.kind} with gamma {self.gamma:.4g}, at the end "
                f"{self.gamma * self.gamma_end:.4g}" + f", every {self.interval} steps" * self.lazy)

    def discriminator_loss(self, discriminate: Discriminate, real: Tensor, fakes: Tensor,
                           step: Step) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """D's loss, with the penalty if that is due at every step; what to log; D's outputs at
        ``real``."""
        inputs = [x.detach().requires_grad_(self.every_step) for x in (real, fakes)]
        outputs, logits = self.run(discriminate, *inputs)
        loss = discriminator_loss(self.objective, *logits)
        terms = {"discriminator": loss, "D(real)": logits[0].mean(), "D(fake)": logits[1].mean(),
                 "ada_signal": ada_signal(*logits)}
        if self.every_step:
            penalty, parts = self.penalty(discriminate, inputs, step, logits)
            loss, terms = loss + penalty, terms | parts
        return loss, terms, outputs[0]

    def due(self, step: Step) -> bool:
        """Whether this step has a phase of the penalty."""
        return self.lazy and step.due(self.interval)

    def penalty(self, discriminate: Discriminate, inputs: Sequence[Tensor], step: Step,
                logits: Sequence[Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty at (real, fakes) times γ, and its parts; ``logits`` if D has run."""
        if logits is None:
            inputs = [x.detach().requires_grad_() for x in inputs]
        gamma = self.gamma * self.gamma_end ** step.share_of(1.0)
        penalty, parts = gradient_penalty(self.kind, lambda *xs: self.run(discriminate, *xs)[1],
                                          inputs, step.noise, logits)
        return gamma * penalty, parts

    def generator_loss(self, discriminate: Discriminate, fakes: Tensor,
                       real: Tensor) -> tuple[Tensor, Tensor]:
        """G's loss, and D's outputs at the fakes; ``real`` matters to some objectives only."""
        outputs, (fake_logits,) = self.run(discriminate, fakes)
        real_logits = fake_logits
        if self.objective.generator_uses_real:
            with torch.no_grad():  # the generator has no part in them
                _, (real_logits,) = self.run(discriminate, real)
        return generator_loss(self.objective, real_logits, fake_logits), outputs[0]

    def run(self, discriminate: Discriminate,
            *inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """D's outputs, and its logits, at each of the inputs, float32."""
        if self.concat_real_fake and len(inputs) > 1:
            batch = torch.cat([x.to(inputs[0].dtype) for x in inputs])
            outputs = list(discriminate(batch).float().chunk(len(inputs)))
        else:
            outputs = [discriminate(x).float() for x in inputs]
        return outputs, outputs if self.patches else [out[:, 0] for out in outputs]


def path_lengths(images: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """‖J_wᵀ y‖ / √(H W) of every image (n, C, H, W) made from styles w (n, layers, d): (n,).

    How far it moves with its styles, as a root mean square over layers; y is standard normal.
    Path-length regularisation (Karras et al. 2020, eq. 4) holds the lengths to their running mean,
    so that a step in w changes the image equally everywhere.
    """
    projection = (images.float() * y).sum() / math.sqrt(images.shape[2] * images.shape[3])
    gradient, = torch.autograd.grad(projection, w, create_graph=True)
    return (gradient.float().square().sum(2).mean(1) + 1e-12).sqrt()
