"""Speed of training translators: plain PyTorch against latlas's engine, in alternation.

Same layers and weights, batch, losses (least squares; weights as the sources have them), pool
of fakes and optimiser (Adam) on both sides; what is timed are whole steps of all players. The plain
side is the loop as it is usually written: fp32, ``torch.optim.Adam``, the generators first, fakes
made once a step and shown to the discriminators without their history; every weight's gradient is
taken in every backward pass, also of discriminators that only pass it on. "plain, frozen" does not
take those, as the authors' own code does not. The identity loss of CycleGAN makes two more images
for each domain, on both sides. latlas runs as it comes (number format and layout by timing), and
once more held to fp32.

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
SIDE, ITEMS = 128, 200


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
class Pool:
    """Earlier fakes, one of which is shown for a new one half of the time."""

    size: int = 50
    fakes: list[Tensor] = field(default_factory=list)

    def exchanged(self, batch: Tensor) -> Tensor:
        """What is shown for a batch of fakes."""
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


def squares(odds: Tensor, wanted: float) -> Tensor:
    """½ (D − wanted)², mean."""
    return 0.5 * F.mse_loss(odds, torch.full_like(odds, wanted))


def adam(*networks: nn.Module) -> torch.optim.Adam:
    """One player's optimiser."""
    weights = [w for network in networks for w in network.parameters()]
    return torch.optim.Adam(weights, lr=RATE, betas=BETAS)


def stop(frozen: bool, *networks: nn.Module) -> None:
    """Whether gradients of these weights are left out."""
    for network in networks:
        network.requires_grad_(not frozen)


def plain_pairs(model: Any, a: Tensor, b: Tensor, batch: int, freeze: bool) -> Step:
    """One step of pix2pix's two players."""
    g, d, weight = model.generator, model.discriminator, model.config.l1
    players = adam(g), adam(d)

    def judged(x: Tensor, y: Tensor) -> Tensor:
        return d(torch.cat([x, y], 1))

    def step() -> None:
        rows = torch.randint(len(a), (batch,), device=a.device)
        x, y = a[rows], b[rows]
        made = g(x)
        stop(freeze, d)
        players[0].zero_grad()
        (squares(judged(x, made), 1) + weight * F.l1_loss(made, y)).backward()
        players[0].step()
        stop(False, d)
        players[1].zero_grad()
        (squares(judged(x, y), 1) + squares(judged(x, made.detach()), 0)).backward()
        players[1].step()
    return step


def plain_cycle(model: Any, a: Tensor, b: Tensor, batch: int, freeze: bool) -> Step:
    """One step of CycleGAN's four players."""
    forth, back, judges = model.G_AB, model.G_BA, (model.D_A, model.D_B)
    players, pools, config = (adam(forth, back), adam(*judges)), (Pool(), Pool()), model.config

    def made(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fakes = back(y), forth(x)
        fooled = squares(judges[0](fakes[0]), 1) + squares(judges[1](fakes[1]), 1)
        cycle = F.l1_loss(back(fakes[1]), x) + F.l1_loss(forth(fakes[0]), y)
        same = F.l1_loss(back(x), x) + F.l1_loss(forth(y), y)
        return *fakes, fooled + config.cycle * cycle + config.identity * same

    def step() -> None:
        x, y = (data[torch.randint(len(data), (batch,), device=a.device)] for data in (a, b))
        stop(freeze, *judges)
        players[0].zero_grad()
        *fakes, loss = made(x, y)
        loss.backward()
        players[0].step()
        stop(False, *judges)
        players[1].zero_grad()
        for judge, pool, real, fake in zip(judges, pools, (x, y), fakes, strict=True):
            (squares(judge(real), 1) + squares(judge(pool.exchanged(fake)), 0)).backward()
        players[1].step()
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
    x = coloured(task["data"], SIDE, ITEMS)
    if isinstance(side, bool):
        return plain(case, x, task["device"], side), {}
    model = case.build()
    space = model.space
    data = PairDataset(Dataset(x, space.a), Dataset(255 - x, space.b), space.aligned)
    return latlas_step(model, data, case.batch_size, task, side)


if __name__ == "__main__":
    run("translation_speed.py", __doc__ or "", CASES, list(SIDES), make)
