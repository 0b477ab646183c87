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

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Player = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """Both players' losses, functions of (real, fake), each (n,) to (n,).

    Attributes:
        pairs: the generator's loss depends on the real items too.
        relative: nothing changes if a number is added to all of D's outputs.
    """

    discriminator: Player
    generator: Player
    pairs: bool = False
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
                              lambda real, fake: F.softplus(real - fake), pairs=True,
                              relative=True),
}


def certainty(real: Tensor, fake: Tensor) -> Tensor:
    """How sure D is of real items, −1 … 1: E sign(D(x) − m), m half-way between the two means.

    r_t of Karras et al. (2020b, eq. 1), where m is 0; a relativistic D has no zero of its own.
    """
    middle = 0.5 * (real.mean() + fake.mean())
    return (real - middle).sign().mean()
