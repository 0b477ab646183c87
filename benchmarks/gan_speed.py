"""Speed of adversarial training: plain PyTorch against latlas's engine, in alternation.

Same networks, batch, loss (non-saturating, no penalty) and optimiser (Adam) on both sides; what is
timed are whole steps of both players. The plain side is the loop as it is usually written: fp32,
``torch.optim.Adam``, fakes made anew for each player, every weight's gradient taken in every
backward pass. "fakes once" makes them once a step, as PyTorch's own DCGAN example does. The style
generator is latlas's, whose modulated convolutions the plain side computes as groups of filters,
one group for every item. latlas runs as it comes (number format and layout by timing), and once
more held to fp32.

    python benchmarks/gan_speed.py --threads 1 2
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    Clock,
    Measured,
    answer,
    arguments,
    ask,
    machine,
    memory,
    peak_memory,
    pictures,
    ratio,
    run_rounds,
    spread,
    table,
    write_json,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from latlas.core.memory import keep_freed_memory
from latlas.core.model import Model
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.data.batches import Batches
from latlas.data.dataset import Dataset
from latlas.engine.choose import apply_layout, choose
from latlas.engine.options import TrainOptions
from latlas.engine.processes import World
from latlas.engine.trainer import Trainer
from latlas.models import build, get
from latlas.networks import style

#: name of a side → precision latlas is held to, or whether the plain loop makes fakes once
SIDES: dict[str, str | bool] = {"plain": False, "plain, fakes once": True, "latlas": "auto",
                                "latlas fp32": "fp32"}
RATE, BETAS = 2e-4, (0.5, 0.999)
LATENT = 100
#: pictures in memory, steps before the clock starts, and the least number of timed ones
ITEMS, WARM, LEAST = 2_000, 2, 4
Step = Callable[[], None]


@dataclass(frozen=True)
class Game:
    """Two players and the size of their pictures."""

    title: str
    model: str
    side: int
    batch_size: int

    def build(self) -> Model:
        """The model; its first weights are the same every time."""
        torch.manual_seed(0)
        space = Space.picture((3, self.side, self.side))
        config = {"objective": "non-saturating", "penalty": "none", "augment": "none"}
        if self.model == "style-gan":
            more = get(self.model).config(**config, path_weight=0.0)
            return build(self.model, more, space)
        return build(self.model, get(self.model).config(**config, latent_dim=LATENT), space,
                     generator=dcgan_generator(self.side), discriminator=dcgan_judge(self.side))


GAMES = {
    "dcgan-32": Game("DCGAN, 32 px", "gan", 32, 64),
    "dcgan-64": Game("DCGAN, 64 px", "gan", 64, 64),
    "style-64": Game("StyleGAN2, 64 px", "style-gan", 64, 32),
}


def dcgan_generator(side: int) -> nn.Module:
    """(n, 100) to (n, 3, side, side) (Radford et al. 2016, figure 1), 64 channels at the end."""
    wide = [64 * 2**k for k in range(side.bit_length() - 3)][::-1]
    layers: list[nn.Module] = [nn.Unflatten(1, (LATENT, 1, 1)),
                               nn.ConvTranspose2d(LATENT, wide[0], 4, 1, 0, bias=False),
                               nn.BatchNorm2d(wide[0]), nn.ReLU(True)]
    for i, o in pairwise(wide):
        layers += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(wide[-1], 3, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_judge(side: int) -> nn.Module:
    """(n, 3, side, side) to (n, 1)."""
    wide = [64 * 2**k for k in range(side.bit_length() - 3)]
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for i, o in pairwise(wide):
        layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(wide[-1], 1, 4, 1, 0, bias=False), nn.Flatten())


def grouped(x: Tensor, weight: Tensor, styles: Tensor, shift: Tensor, gain: float) -> Tensor:
    """Modulated convolution as StyleGAN2 writes it: filters of its own for every item."""
    n, (o, i, k, _) = len(x), weight.shape
    each = weight[None] * styles[:, None, :, None, None]
    each = each * (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    h = F.conv2d(x.reshape(1, n * i, *x.shape[2:]), each.reshape(n * o, i, k, k), padding=k // 2,
                 groups=n)
    return gain * h.reshape(n, o, *h.shape[2:]) + shift[:, None, None]


# ------------------------------------------------------------------------------ the two sides

def plain(game: Game, x: NDArray[np.uint8], device: str, once: bool) -> Step:
    """One step of both players."""
    model = game.build().to(device)
    setattr(style, "modulated", grouped)  # noqa: B010
    g, d = model.generator, model.discriminator
    players = [torch.optim.Adam(m.parameters(), lr=RATE, betas=BETAS) for m in (g, d)]
    data = (torch.from_numpy(x).float() / 127.5 - 1).to(device)
    noise = Noise(0, device)

    def fakes() -> Tensor:
        if game.model == "style-gan":
            first, second = (g.mapping(torch.randn(game.batch_size, model.latent_dim,
                                                   device=device)) for _ in range(2))
            level = torch.randint(1, len(model.layer_sizes), (game.batch_size,), device=device)
            return g.synthesis(model.mix(first, second, level), noise)
        return g(torch.randn(game.batch_size, LATENT, device=device))

    def step() -> None:
        real = data[torch.randint(len(data), (game.batch_size,), device=device)]
        for player in players:
            player.zero_grad()
        made = fakes()
        (F.softplus(-d(real)).mean() + F.softplus(d(made.detach())).mean()).backward()
        players[1].step()
        F.softplus(-d(made if once else fakes())).mean().backward()
        players[0].step()
    return step


def ours(game: Game, x: NDArray[np.uint8], task: dict[str, Any],
         precision: str) -> tuple[Step, dict[str, Any]]:
    """One step of latlas's trainer, and what it chose as in a long run."""
    keep_freed_memory()
    model = game.build().to(task["device"])
    options = TrainOptions(minutes=30, batch_size=game.batch_size, learning_rate=RATE, betas=BETAS,
                           schedule="constant", warmup=0.0, precision=precision,
                           threads=task["threads"], device=task["device"])
    batches = Batches(Dataset(x, model.space), game.batch_size, device=task["device"])
    chosen = choose(model, batches, options, World())
    apply_layout(model, chosen.layout)
    trainer = Trainer(model, options, budget=chosen.images, precision=chosen.precision,
                      items=len(x))
    return lambda: trainer.step(batches.at(trainer.index)), chosen.to_json()


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One side, one case: seconds per picture and peak memory. Runs in a subprocess."""
    torch.set_num_threads(task["threads"])
    game, side, chosen = GAMES[task["case"]], SIDES[task["side"]], {}
    x = coloured(task["data"], game.side)
    if isinstance(side, bool):
        step = plain(game, x, task["device"], side)
    else:
        step, chosen = ours(game, x, task, side)
    took = timed(step, game.batch_size, task["device"], task["seconds"])
    return {**took, "chosen": chosen, **peak_memory(task["device"])}


def timed(step: Step, items: int, device: str, seconds: float) -> dict[str, float]:
    """Seconds per picture: the median step of so long a time."""
    for _ in range(WARM):
        step()
    clocks = [Clock.now(device)]
    while len(clocks) <= LEAST or clocks[-1].wall - clocks[0].wall < seconds:
        step()
        clocks.append(Clock.now(device))
    steps = [late.since(early, items) for early, late in pairwise(clocks)]
    return {key: statistics.median(s[key] for s in steps) for key in steps[0]}


def coloured(path: Path | None, side: int) -> NDArray[np.uint8]:
    """Pictures of 28 by 28, enlarged and framed: (ITEMS, 3, side, side)."""
    times = side // 28
    x = pictures(path, ITEMS)[:ITEMS].repeat(times, 1).repeat(times, 2)
    edge = (side - 28 * times) // 2
    framed = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    return np.ascontiguousarray(np.repeat(framed[:, None], 3, 1))


# ------------------------------------------------------------------------------ comparing

def main() -> None:
    """Measure, or compare."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--cases", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    options = parser.parse_args()
    if options.measure:
        answer(measure(options.measure))
    else:
        compare(options)


def compare(options: Namespace) -> None:
    """All sides in turn, ``rounds`` times, for each case and number of threads."""
    data: dict[str, Any] = {"machine": machine(options.device), "measured": []}
    print(data["machine"])
    for threads in options.threads:
        rows = []
        for name in options.cases:
            found = run_rounds(options.sides, options.rounds, lambda side, name=name,
                               threads=threads: ask("gan_speed.py", _task(
                                   options, name, side, threads), threads))
            data["measured"].append({"threads": threads, "case": name, "sides": found})
            rows += _rows(name, found)
        print(f"\n{threads} thread{'s' * (threads > 1)}, {options.rounds} rounds: "
              "median (least … greatest)\n")
        print(table(HEAD, rows), flush=True)
    write_json(options.json, data)


def _task(options: Namespace, case: str, side: str, threads: int) -> dict[str, Any]:
    return {"case": case, "side": side, "threads": threads, "device": options.device,
            "seconds": options.seconds, "data": None if options.data is None else str(options.data)}


HEAD = ["case", "side", "images/s", "times plain", "by CPU time", "chosen", "peak MiB",
        "of plain's"]


def _rows(name: str, found: Measured) -> list[list[str]]:
    game, base = GAMES[name], next(iter(found.values()))
    return [[f"{game.title}, batch {game.batch_size}", side,
             spread((1 / m["seconds"] for m in measured), 0), ratio(base, measured, "seconds"),
             ratio(base, measured, "cpu_seconds"), _chosen(measured[-1]["chosen"]),
             *memory(measured, base)[:2]]
            for side, measured in found.items()]


def _chosen(chosen: dict[str, Any]) -> str:
    return f"{chosen['precision']}, {chosen['layout']}" if chosen else "fp32"


if __name__ == "__main__":
    main()
