"""The same networks under pythae.

pythae 0.1.2 installs beside the pinned torch as it is: it brings pydantic, imageio, tqdm and
cloudpickle, no torchvision, and needs no shim.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from typing import Any

import torch
from common import Case, Clock
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, BetaVAE, BetaVAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

logging.getLogger("pythae").setLevel(logging.WARNING)


class Encoder(BaseEncoder):
    """Any module (n, 1, 28, 28) → (n, 2d), fed with [0, 1] or [−1, 1]."""

    def __init__(self, network: nn.Module, centred: bool) -> None:
        super().__init__()
        self.network, self.centred = network, centred

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_var = self.network(2 * x - 1 if self.centred else x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_var)


class Decoder(BaseDecoder):
    """Any module (n, d) → logits; pythae wants probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


def build(case: Case, networks: tuple[nn.Module, nn.Module], centred: bool = False) -> VAE:
    """pythae's VAE (β-VAE where β ≠ 1) around these networks, summed binary cross-entropy."""
    shape = {"input_dim": (1, 28, 28), "latent_dim": case.latent_dim, "reconstruction_loss": "bce"}
    encoder, decoder = Encoder(networks[0], centred), Decoder(networks[1])
    if case.beta == 1:
        return VAE(VAEConfig(**shape), encoder, decoder)
    return BetaVAE(BetaVAEConfig(**shape, beta=case.beta), encoder, decoder)


def train_speed(case: Case, x: Tensor, images: int, warm: int, device: str) -> dict[str, Any]:
    """Seconds per image over one pass of pythae's own ``train_step`` after a warm-up pass.

    ``train_step`` is its loop over the loader and nothing else: its per-epoch deep copy of the
    model, evaluation and saving are outside.
    """
    model = build(case, case.networks())
    with tempfile.TemporaryDirectory() as folder:
        _trainer(model, case, x[:warm], folder, device).train_step(1)
        trainer = _trainer(model, case, x[:images], folder, device)
        begun = Clock.now(device)
        loss = trainer.train_step(1)
        took = Clock.now(device).since(begun, images)
    return {**took, "loss": loss}


def _trainer(model: VAE, case: Case, x: Tensor, folder: str, device: str) -> BaseTrainer:
    config = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=case.batch_size,
                               learning_rate=1e-3, num_epochs=1, no_cuda=device == "cpu")
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = BaseTrainer(model, BaseDataset(x, torch.ones(len(x))), training_config=config)
        trainer.prepare_training()
    return trainer


def likelihood(case: Case, networks: tuple[nn.Module, nn.Module], x: Tensor, draws: int,
               batch_size: int, device: str) -> dict[str, Any]:
    """Mean nats per example by pythae's ``get_nll``, and seconds per example."""
    model = build(case, networks, centred=True).to(device).eval()
    x = x.to(device)
    with torch.no_grad():
        model.get_nll(x[:2], draws, batch_size)
        begun = Clock.now(device)
        nats = model.get_nll(x, draws, batch_size)
        took = Clock.now(device).since(begun, len(x))
    return {**took, "nats": float(nats)}
