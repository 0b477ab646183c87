"""Speed of training translators: plain PyTorch against latlas's engine, in alternation.

Both sides have the same layers and weights, batch, losses (least squares; weights as the sources
have them), replay buffer of fakes and optimiser (Adam). Whole steps are timed: generators and
discriminators. The plain side is the loop as it is usually written: torch's own layers (where
latlas's reorder their sums, ``Mirrored`` of ``latlas/networks/translators.py``), fp32,
``torch.optim.Adam``, the generators first, fakes generated once a step and detached for the
discriminators. It computes the gradient of every weight in every backward pass, also of
discriminators in the generators' pass. "plain, frozen" leaves those out, as the authors' code does.
The identity loss of CycleGAN translates two more images for each domain, on both sides. latlas
chooses dtype and layout itself; "latlas fp32" fixes the dtype.

    python benchmarks/translation_speed.py --threads 1 2
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from steps import BETAS, RATE, Step, coloured, latlas_step, run
from torch import Tensor, nn

from latlas.core.model import Model
from latlas.core.space import Images, PairSpace
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.models import build, get

#: name of a side → precision latlas is held to, or whether the plain loop freezes discriminators
SIDES: dict[str, str | bool] = {"plain": False, "plain, frozen": True, "latlas": "auto",
                                "latlas fp32": "fp32"}
#: pixels a side, images in memory of each domain
SIDE, EXAMPLES = 128, 200


@dataclass(frozen=True)
class Task:
    """A model with the settings of its source, and how many images it sees at once."""

    title: str
    model: str
    batch_size: int

    def build(self) -> Model:
        """The model; its first weights are the same every time."""
        torch.manual_seed(0)
        side = Images((3, SIDE, SIDE))
        space = PairSpace(side, side, self.model == "pix2pix")
        return build(self.model, get(self.model).config(), space)


CASES = {
    "cycle-gan-1": Task("CycleGAN, 6 residual blocks, 128 px", "cycle-gan", 1),
    "pix2pix-1": Task("pix2pix, U-Net, 128 px", "pix2pix", 1),
    "pix2pix-4": Task("pix2pix, U-Net, 128 px", "pix2pix", 4),
}


@dataclass
class ReplayBuffer:
    """Earlier fakes, one of which replaces a new one half of the time."""

    size: int = 50
    fakes: list[Tensor] = field(default_factory=list)

    def exchanged(self, batch: Tensor) -> Tensor:
        """What the discriminator gets for a batch of fakes."""
        return torch.stack([self._one(fake) for fake in batch.detach()])

    def _one(self, fake: Tensor) -> Tensor:
        if len(self.fakes) < self.size:
            self.fakes.append(fake.clone())
            return fake
        if random.random() < 0.5:
            return fake
        at = random.randrange(self.size)
        old, self.fakes[at] = self.fakes[at], fake.clone()
        return old


def squares(logits: Tensor, target: float) -> Tensor:
    """½ (D − target)², mean."""
    return 0.5 * F.mse_loss(logits, torch.full_like(logits, target))


def adam(*networks: nn.Module) -> torch.optim.Adam:
    """The optimiser of networks that share a loss."""
    weights = [w for network in networks for w in network.parameters()]
    return torch.optim.Adam(weights, lr=RATE, betas=BETAS)


def stop(frozen: bool, *networks: nn.Module) -> None:
    """Whether gradients of these weights are left out."""
    for network in networks:
        network.requires_grad_(not frozen)


def plain_pairs(model: Any, a: Tensor, b: Tensor, batch: int, freeze: bool) -> Step:
    """One step of pix2pix's generator and discriminator."""
    g, d, weight = model.generator, model.discriminator, model.config.l1
    g_adam, d_adam = adam(g), adam(d)

    def logits(x: Tensor, y: Tensor) -> Tensor:
        return d(torch.cat([x, y], 1))

    def step() -> None:
        rows = torch.randint(len(a), (batch,), device=a.device)
        x, y = a[rows], b[rows]
        fake = g(x)
        stop(freeze, d)
        g_adam.zero_grad()
        (squares(logits(x, fake), 1) + weight * F.l1_loss(fake, y)).backward()
        g_adam.step()
        stop(False, d)
        d_adam.zero_grad()
        (squares(logits(x, y), 1) + squares(logits(x, fake.detach()), 0)).backward()
        d_adam.step()
    return step


def plain_cycle(model: Any, a: Tensor, b: Tensor, batch: int, freeze: bool) -> Step:
    """One step of CycleGAN's two generators and two discriminators."""
    g_ab, g_ba, d_a, d_b = model.G_AB, model.G_BA, model.D_A, model.D_B
    g_adam, d_adam, config = adam(g_ab, g_ba), adam(d_a, d_b), model.config
    buffers = ReplayBuffer(), ReplayBuffer()

    def step() -> None:
        x, y = (data[torch.randint(len(data), (batch,), device=a.device)] for data in (a, b))
        stop(freeze, d_a, d_b)
        g_adam.zero_grad()
        fake_a, fake_b = g_ba(y), g_ab(x)
        adversarial = squares(d_a(fake_a), 1) + squares(d_b(fake_b), 1)
        cycle = F.l1_loss(g_ba(fake_b), x) + F.l1_loss(g_ab(fake_a), y)
        identity = F.l1_loss(g_ba(x), x) + F.l1_loss(g_ab(y), y)
        (adversarial + config.cycle * cycle + config.identity * identity).backward()
        g_adam.step()
        stop(False, d_a, d_b)
        d_adam.zero_grad()
        for d, buffer, real, fake in zip((d_a, d_b), buffers, (x, y), (fake_a, fake_b),
                                         strict=True):
            (squares(d(real), 1) + squares(d(buffer.exchanged(fake)), 0)).backward()
        d_adam.step()
    return step


def plain(case: Task, x: NDArray[Any], device: str, freeze: bool) -> Step:
    """One step as it is usually written; B is A inverted."""
    model = case.build().to(device)
    a = (torch.from_numpy(x).float() / 127.5 - 1).to(device)
    loop = plain_pairs if case.model == "pix2pix" else plain_cycle
    return loop(model, a, -a, case.batch_size, freeze)


def make(task: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """A step of one side, and what latlas chose."""
    case, side = CASES[task["case"]], SIDES[task["side"]]
    x = coloured(task["data"], SIDE, EXAMPLES)
    if isinstance(side, bool):
        return plain(case, x, task["device"], side), {}
    model = case.build()
    space = model.space
    data = PairDataset(Dataset(x, space.a), Dataset(255 - x, space.b), space.aligned)
    return latlas_step(model, data, case.batch_size, task, side)


if __name__ == "__main__":
    run("translation_speed.py", __doc__ or "", CASES, list(SIDES), make)
