"""Speed of adversarial training: plain PyTorch against latlas's engine, in alternation.

Same networks, batch, loss and optimiser (Adam) on both sides; what is timed are whole steps of both
networks. The loss of DCGAN and StyleGAN2 is non-saturating without a penalty, that of the light
networks relativistic with R1 and R2 at every fourth step, as ``gan`` trains them. The plain side is
the loop as it is usually written: fp32, ``torch.optim.Adam``, fakes made anew for each network,
every weight's gradient taken in every backward pass. "fakes once" makes them once a step, as
PyTorch's own DCGAN example does. The style generator is latlas's, whose modulated convolutions the
plain side computes as groups of filters, one group for every example. latlas runs as it comes
(number format and layout by timing), and once more held to fp32.

    python benchmarks/gan_speed.py --threads 1 2
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from steps import BETAS, RATE, Step, coloured, latlas_step, run
from torch import Tensor, nn

from latlas.core.model import Model
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data.dataset import Dataset
from latlas.models import build, get
from latlas.networks import equalised

#: name of a side → precision latlas is held to, or whether the plain loop makes fakes once
SIDES: dict[str, str | bool] = {"plain": False, "plain, fakes once": True, "latlas": "auto",
                                "latlas fp32": "fp32"}
LATENT = 100
#: images in memory
ITEMS = 2_000


@dataclass(frozen=True)
class Game:
    """Two players and the size of their images."""

    title: str
    model: str
    side: int
    batch_size: int
    penalised: bool = False

    @property
    def period(self) -> int:
        """Steps that cost, together, what any others of them do."""
        return 4 if self.penalised else 1

    def build(self) -> Model:
        """The model; its first weights are the same every time."""
        torch.manual_seed(0)
        space = Images((3, self.side, self.side))
        if self.penalised:
            return build(self.model, get(self.model).config(prior="normal", augment="none"), space)
        config = {"objective": "non-saturating", "penalty": "none", "augment": "none"}
        if self.model == "style-gan":
            more = get(self.model).config(**config, path_weight=0.0)
            return build(self.model, more, space)
        return build(self.model, get(self.model).config(**config, latent_dim=LATENT), space,
                     generator=dcgan_generator(self.side), discriminator=dcgan_judge(self.side))


GAMES = {
    "dcgan-32": Game("DCGAN, 32 px", "gan", 32, 64),
    "dcgan-64": Game("DCGAN, 64 px", "gan", 64, 64),
    "light-64": Game("light, 64 px", "gan", 64, 32, penalised=True),
    "light-128": Game("light, 128 px", "gan", 128, 32, penalised=True),
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
    """Modulated convolution as StyleGAN2 writes it: filters of its own for every example."""
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
    setattr(equalised, "modulated", grouped)  # noqa: B010
    g, d = model.generator, model.discriminator
    players = [torch.optim.Adam(m.parameters(), lr=RATE, betas=BETAS) for m in (g, d)]
    steps = count()
    data = (torch.from_numpy(x).float() / 127.5 - 1).to(device)
    noise = Noise(0, device)

    def fakes() -> Tensor:
        if game.model == "style-gan":
            first, second = (g.mapping(torch.randn(game.batch_size, model.latent_dim,
                                                   device=device)) for _ in range(2))
            level = torch.randint(1, len(model.layer_sizes), (game.batch_size,), device=device)
            return g.synthesis(model.mix(first, second, level), noise)
        return g(torch.randn(game.batch_size, model.latent_dim, device=device))

    def penalised_step() -> None:
        """Relativistic, with R1 and R2 at every ``r1_interval``-th step."""
        real = data[torch.randint(len(data), (game.batch_size,), device=device)]
        due = next(steps) % model.config.r1_interval == 0
        for player in players:
            player.zero_grad()
        made = fakes()
        d_inputs = [x.detach().requires_grad_(due) for x in (real, made)]
        of_real, of_made = map(d, d_inputs)
        loss = F.softplus(of_made - of_real).mean()
        if due:
            gradients = torch.autograd.grad([of_real.sum(), of_made.sum()], d_inputs,
                                            create_graph=True)
            squares = sum(gradient.square().flatten(1).sum(1).mean() for gradient in gradients)
            loss = loss + 0.5 * model.config.gamma * model.config.r1_interval * squares
        loss.backward()
        players[1].step()
        F.softplus(d(real) - d(made if once else fakes())).mean().backward()
        players[0].step()

    def step() -> None:
        real = data[torch.randint(len(data), (game.batch_size,), device=device)]
        for player in players:
            player.zero_grad()
        made = fakes()
        (F.softplus(-d(real)).mean() + F.softplus(d(made.detach())).mean()).backward()
        players[1].step()
        F.softplus(-d(made if once else fakes())).mean().backward()
        players[0].step()
    return penalised_step if game.penalised else step


def make(task: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """A step of one side, and what latlas chose."""
    game, side = GAMES[task["case"]], SIDES[task["side"]]
    x = coloured(task["data"], game.side, ITEMS)
    if isinstance(side, bool):
        return plain(game, x, task["device"], side), {}
    model = game.build()
    return latlas_step(model, Dataset(x, model.space), game.batch_size, task, side)


if __name__ == "__main__":
    run("gan_speed.py", __doc__ or "", GAMES, list(SIDES), make)
