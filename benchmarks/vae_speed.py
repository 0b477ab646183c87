"""Speed and memory of a convolutional VAE: plain PyTorch against latlas's engine, in alternation.

Same networks (latlas's own, at their defaults), batch, loss (the evidence lower bound) and
optimiser (Adam) on both sides; what is timed are whole steps, from uint8 images in memory to
weights. The plain side is the loop as it is usually written: fp32, images as PyTorch lays them
out, a ``Dataset`` that gives one example as floats, a ``DataLoader`` in the main process,
``torch.optim.Adam``. latlas runs as it comes (dtype and layout by timing), and once more held to
fp32; the average of the weights costs latlas time, not the plain side.

    python benchmarks/vae_speed.py --threads 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from steps import BETAS, RATE, Step, coloured, latlas_step, run
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from latlas.core.space import Images
from latlas.data import dataset
from latlas.models import build, get
from latlas.models.vae import VAE

#: name of a side → precision latlas is held to; ``None`` is the plain loop
SIDES = {"plain": None, "latlas": "auto", "latlas fp32": "fp32"}
#: images in memory
EXAMPLES = 2_000


@dataclass(frozen=True)
class Case:
    """A size of RGB images and what the decoder's output means."""

    title: str
    side: int
    likelihood: str
    batch_size: int = 64

    def build(self) -> VAE:
        """The model; its first weights are the same every time."""
        torch.manual_seed(0)
        config = get("vae").config(likelihood=self.likelihood)
        model = build("vae", config, Images((3, self.side, self.side)))
        assert isinstance(model, VAE)
        return model


CASES = {f"{name}-{side}": Case(f"{title}, {side} px", side, name)
         for name, title in (("discretised-logistic", "logistic bins"),
                             ("bernoulli", "cross-entropy")) for side in (64, 128)}


class Pictures(Dataset[Tensor]):
    """One example as floats in −1 … 1, as a transform to tensors makes it."""

    def __init__(self, x: NDArray[np.uint8]) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.x[index]).float() / 127.5 - 1


def logistic_bins(output: Tensor, x: Tensor) -> Tensor:
    """−log P(x) of levels that are bins of a logistic density, as PixelCNN++ writes it."""
    mean, log_scale = output.chunk(2, 1)
    log_scale = log_scale.clamp(min=-7)
    inverse, half = torch.exp(-log_scale), 1 / 255
    upper, lower = inverse * (x - mean + half), inverse * (x - mean - half)
    inside = torch.log((torch.sigmoid(upper) - torch.sigmoid(lower)).clamp(min=1e-12))
    return -torch.where(x < -0.999, F.logsigmoid(upper),
                        torch.where(x > 0.999, F.logsigmoid(-lower), inside)).sum()


def plain(case: Case, x: NDArray[np.uint8], device: str) -> Step:
    """One step as it is usually written."""
    model = case.build().to(device)
    encoder, decoder = model.encoder, model.decoder
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE, BETAS)
    loader = DataLoader(Pictures(x), case.batch_size, shuffle=True, drop_last=True)

    def endless() -> Iterator[Tensor]:
        while True:
            yield from loader

    batches = endless()

    def step() -> None:
        images = next(batches).to(device)
        mean, log_var = encoder(images).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        output = decoder(z)
        if case.likelihood == "bernoulli":
            error = F.binary_cross_entropy_with_logits(output, (images + 1) / 2, reduction="sum")
        else:
            error = logistic_bins(output, images)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        loss = (error + kl) / len(images)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return step


def make(task: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """A step of one side, and what latlas chose."""
    case, precision = CASES[task["case"]], SIDES[task["side"]]
    x = coloured(task["data"], case.side, EXAMPLES)
    if precision is None:
        return plain(case, x, task["device"]), {}
    model = case.build()
    data = dataset.Dataset(x, model.space)
    return latlas_step(model, data, case.batch_size, task, precision)


if __name__ == "__main__":
    run("vae_speed.py", __doc__ or "", CASES, list(SIDES), make)
