"""The table of models. Nothing here imports torch until a model is built.

A model from outside the table is named by its class, ``module:Class``; the class then carries its
config dataclass as ``Config`` and may carry ``provides``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import ConfigError, unknown
from latlas.models import config as configs

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.core.space import Space

AUTOENCODER = frozenset({"sample", "encode", "decode", "reconstruct"})
LIKELIHOOD = AUTOENCODER | {"score"}
GENERATOR = frozenset({"sample", "decode"})
STYLES = GENERATOR | {"mix"}
TRANSLATOR = frozenset({"translate"})
#: (Isola et al. 2017, section 3.3)
TRANSLATION_TRAINING = {"betas": (0.5, 0.999), "learning_rate": 2e-4, "batch_size": 4}
#: no momentum: the other player has moved on since
GAN_TRAINING: dict[str, Any] = {"betas": (0.0, 0.99), "learning_rate": 0.0}
#: of layers whose weights have unit variance
EQUALISED_TRAINING = GAN_TRAINING | {"learning_rate": 2e-3}
#: without decay a VAE's held-out bound worsens long before its budget is spent
VAE_TRAINING = {"weight_decay": 0.3}


@dataclass(frozen=True)
class Entry:
    """Where a model's class is, its config, what it provides, and its training defaults.

    Attributes:
        config_class: ``None`` for the ``Config`` of the class itself, which imports torch.
    """

    target: str
    config_class: Any
    provides: frozenset[str]
    summary: str
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        """The config dataclass."""
        return load_class(self).Config if self.config_class is None else self.config_class


MODELS: dict[str, Entry] = {
    "pca": Entry("latlas.models.pca:PCA", configs.PCAConfig, LIKELIHOOD,
                 "probabilistic PCA: exact likelihood in closed form; the baseline"),
    "ae": Entry("latlas.models.ae:AE", configs.AEConfig, AUTOENCODER,
                "autoencoder: squared error through a bottleneck"),
    "dae": Entry("latlas.models.ae:DAE", configs.DAEConfig, AUTOENCODER | {"denoise"},
                 "denoising autoencoder: the clean item from a corrupted one"),
    "vae": Entry("latlas.models.vae:VAE", configs.VAEConfig, LIKELIHOOD,
                 "variational autoencoder: a generative model with a bound on its likelihood",
                 VAE_TRAINING),
    "beta-vae": Entry("latlas.models.beta_vae:BetaVAE", configs.BetaVAEConfig, LIKELIHOOD,
                      "VAE whose KL weighs beta: fewer, more independent code dimensions",
                      VAE_TRAINING),
    "iwae": Entry("latlas.models.iwae:IWAE", configs.IWAEConfig, LIKELIHOOD,
                  "VAE trained on a tighter bound, of several weighted draws of the code",
                  VAE_TRAINING),
    "hierarchical-vae": Entry("latlas.models.hierarchical_vae:HierarchicalVAE",
                              configs.HierarchicalVAEConfig, LIKELIHOOD,
                              "VAE with two or more stochastic layers", VAE_TRAINING),
    "beta-tc-vae": Entry("latlas.models.beta_tc_vae:BetaTCVAE", configs.BetaTCVAEConfig, LIKELIHOOD,
                         "VAE whose total correlation weighs beta: independent code dimensions",
                         VAE_TRAINING),
    "factor-vae": Entry("latlas.models.factor_vae:FactorVAE", configs.FactorVAEConfig, LIKELIHOOD,
                        "the same by a discriminator that tells codes from permuted ones",
                        VAE_TRAINING),
    "conditional-vae": Entry("latlas.models.conditional_vae:ConditionalVAE",
                             configs.ConditionalVAEConfig, LIKELIHOOD,
                             "VAE given a label, or a part of the picture (completion)",
                             VAE_TRAINING),
    "debiasing-vae": Entry("latlas.models.debiasing_vae:DebiasingVAE", configs.DebiasingVAEConfig,
                           LIKELIHOOD | {"classify"},
                           "classifier with a VAE, whose codes tell what is rare and to be seen "
                           "more often", VAE_TRAINING),
    "gan": Entry("latlas.models.gan:GAN", configs.GANConfig, GENERATOR,
                 "generative adversarial network: sharp samples, no encoder", GAN_TRAINING),
    "conditional-gan": Entry("latlas.models.conditional_gan:ConditionalGAN",
                             configs.ConditionalGANConfig, GENERATOR,
                             "the same, of a class that is asked for", GAN_TRAINING),
    "progressive-gan": Entry("latlas.models.progressive_gan:ProgressiveGAN",
                             configs.ProgressiveGANConfig, GENERATOR,
                             "GAN that grows from 4 pixels upward", EQUALISED_TRAINING),
    "style-gan": Entry("latlas.models.style_gan:StyleGAN", configs.StyleGANConfig, STYLES,
                       "GAN of pictures whose every layer has a style: mixing, truncation, edits",
                       EQUALISED_TRAINING),
    "pix2pix": Entry("latlas.models.pix2pix:Pix2Pix", None, TRANSLATOR,
                     "the other picture of a pair: edges to photo, map to scene",
                     TRANSLATION_TRAINING),
    "cycle-gan": Entry("latlas.models.cycle_gan:CycleGAN", None, TRANSLATOR,
                       "from one domain to another and back, without pairs",
                       TRANSLATION_TRAINING | {"batch_size": 0, "learning_rate": 0.0}),
    "flow-matching": Entry("latlas.models.flow_matching:FlowMatching", configs.FlowMatchingConfig,
                           frozenset({"sample", "score"}),
                           "a flow from noise to items, without a code: tables, points, codes",
                           {"learning_rate": 2e-3}),
}


def get(name: str) -> Entry:
    """The entry of a model's name, or of ``module:Class``."""
    if name in MODELS:
        return MODELS[name]
    if ":" in name:
        return _foreign(name)
    raise ConfigError(unknown("model", name, MODELS))


def load_class(entry: Entry) -> Any:
    """The class an entry names; this imports torch."""
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import model {entry.target!r}: {error}") from error


def build(name: str, config: Any, space: Space, **modules: Any) -> Model:
    """A fresh model; ``modules`` are networks of the user's own (``encoder=…``)."""
    made = load_class(get(name))
    takes = inspect.signature(made).parameters
    for module in modules:
        if module not in takes:
            raise ConfigError(f"{name} takes no {module} of your own")
    model: Model = made(config, space, **modules)
    return model


def _foreign(name: str) -> Entry:
    """The entry of a class found in the current folder or among the installed packages."""
    if str(Path.cwd()) not in sys.path:  # a console script starts without the current folder
        sys.path.append(str(Path.cwd()))
    made = load_class(Entry(name, None, frozenset(), ""))
    if not hasattr(made, "Config"):
        raise ConfigError(f"{name} has no Config: give the class its config dataclass as `Config`")
    provides = frozenset(getattr(made, "provides", LIKELIHOOD))
    return Entry(name, made.Config, provides, (made.__doc__ or name).strip().splitlines()[0])
