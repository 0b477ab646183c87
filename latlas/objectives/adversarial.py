"""What discriminator and generator minimise, each a pure function of D's outputs.

``real`` and ``fake`` are D's outputs (n,), log-odds that an item is real where the objective has a
probability, on equal numbers of real items and of generated ones. Every function gives (n,), to be
averaged, in nats where logarithms are taken.

=============== ============================= ===================== =========================
name            discriminator                 generator             source
=============== ============================= ===================== =========================
minimax         −log D(x) − log(1 − D(G(z)))  log(1 − D(G(z)))      Goodfellow et al. 2014, 1
non-saturating  the same                      −log D(G(z))          the same, section 3
least-squares   ½ (D(x) − 1)² + ½ D(G(z))²    ½ (D(G(z)) − 1)²      Mao et al. 2017, 9
hinge           (1 − D(x))₊ + (1 + D(G(z)))₊  −D(G(z))              Lim & Ye 2017, 7 and 8
wasserstein     D(G(z)) − D(x)                −D(G(z))              Arjovsky et al. 2017, 3
relativistic    −log σ(D(x) − D(G(z)))        the same, x and G(z)  Jolicoeur-Martineau 2019,
                                              changed about         5 and 6
=============== ============================= ===================== =========================

(With the number of the equation. D in the first two is a probability, σ of the output.)

The relativistic one pairs the k-th real item with the k-th fake: no fake is good by itself, it must
be better than a real one, so a mode that is left out keeps its pull (Sun et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.errors import ConfigError, unknown
from latlas.core.noise import Noise

Player = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """Both players' losses, functions of (real, fake), each (n,) to (n,).

    Attributes:
        paired: the generator's loss depends on the real items too.
        relative: nothing changes if a number is added to all of D's outputs.
    """

    discriminator: Player
    generator: Player
    paired: bool = False
    relative: bool = False


def _coin(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


OBJECTIVES: dict[str, Objective] = {
    "minimax": Objective(_coin, lambda real, fake: -F.softplus(fake)),
    "non-saturating": Objective(_coin, lambda real, fake: F.softplus(-fake)),
    "least-squares": Objective(
        lambda real, fake: 0.5 * ((real - 1).square() + fake.square()),
        lambda real, fake: 0.5 * (fake - 1).square()),
    "hinge": Objective(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
                       lambda real, fake: -fake),
    "wasserstein": Objective(lambda real, fake: fake - real, lambda real, fake: -fake,
                             relative=True),
    "relativistic": Objective(lambda real, fake: F.softplus(fake - real),
                              lambda real, fake: F.softplus(real - fake), paired=True,
                              relative=True),
}


def find_objective(objective: str | Objective) -> Objective:
    """The objective of a name, or the one that is given.

    Raises:
        ConfigError: there is none of that name.
    """
    if isinstance(objective, Objective):
        return objective
    if objective not in OBJECTIVES:
        raise ConfigError(unknown("objective", objective, OBJECTIVES))
    return OBJECTIVES[objective]


def discriminator_loss(objective: str | Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss on logits of real examples and of fakes, mean over examples."""
    return find_objective(objective).discriminator(real, fake).mean()


def generator_loss(objective: str | Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The generator's loss, mean; ``real`` matters where the objective is ``paired`` only."""
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
        noise: draws the points of ``gp``.
        logits: D's outputs at both inputs, if it has run (an eager penalty); otherwise D runs where
            the penalty is taken and nowhere else (a lazy one).
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


def certainty(real: Tensor, fake: Tensor) -> Tensor:
    """How sure D is of real items, −1 … 1: E sign(D(x) − m), m half-way between the two means.

    r_t of Karras et al. (2020b, eq. 1), where m is 0; a relativistic D has no zero of its own.
    """
    middle = 0.5 * (real.mean() + fake.mean())
    return (real - middle).sign().mean()


def logit_terms(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """For the log: the mean logits of real examples and of fakes, and :func:`certainty`."""
    return {"D(real)": real.mean(), "D(fake)": fake.mean(), "certainty": certainty(real, fake)}
