"""The table of models. Nothing here imports torch until a model or its config is asked for.

A model from outside the table is named by its class, ``module:Class``. Every class carries its
config dataclass as ``Config``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import ConfigError, RunError, say_option, unknown

if TYPE_CHECKING:
    from latlas.core.model import Model

AUTOENCODER = frozenset({"sample", "encode", "decode", "reconstruct"})
LIKELIHOOD = AUTOENCODER | {"score"}
GENERATOR = frozenset({"sample", "decode"})
STYLES = GENERATOR | {"mix"}
TRANSLATOR = frozenset({"translate"})
#: (Isola et al. 2017, section 3.3); the learning rate is by the networks' width
TRANSLATION_TRAINING = {"betas": (0.5, 0.999), "learning_rate": 0.0, "batch_size": 4}
#: no momentum: the other network has moved on since
GAN_TRAINING: dict[str, Any] = {"betas": (0.0, 0.99), "learning_rate": 0.0}
#: of layers whose weights have unit variance
EQUALISED_TRAINING = GAN_TRAINING | {"learning_rate": 2e-3}
#: without decay a VAE's held-out bound worsens long before its budget is spent
VAE_TRAINING = {"weight_decay": 0.3}


@dataclass(frozen=True)
class Entry:
    """Where a model's class is, what can be asked of it, and its training defaults."""

    target: str
    provides: frozenset[str]
    summary: str
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        """The dataclass of the model's options; this imports the model's module, and torch."""
        return load_class(self).Config


MODELS: dict[str, Entry] = {
    "pca": Entry("latlas.models.pca:PCA", LIKELIHOOD,
                 "probabilistic PCA: exact likelihood in closed form; the baseline"),
    "ae": Entry("latlas.models.autoencoder:AE", AUTOENCODER,
                "autoencoder: squared error through a bottleneck"),
    "dae": Entry("latlas.models.autoencoder:DAE", AUTOENCODER | {"denoise"},
                 "denoising autoencoder: the clean example from a corrupted one"),
    "vae": Entry("latlas.models.vae:VAE", LIKELIHOOD,
                 "variational autoencoder: a generative model with a bound on its likelihood",
                 VAE_TRAINING),
    "beta-vae": Entry("latlas.models.disentangling:BetaVAE", LIKELIHOOD,
                      "VAE whose KL weighs beta: fewer, more independent latent dimensions",
                      VAE_TRAINING),
    "iwae": Entry("latlas.models.vae:IWAE", LIKELIHOOD,
                  "VAE trained on a tighter bound, of several weighted draws of the latents",
                  VAE_TRAINING),
    "hierarchical-vae": Entry("latlas.models.hierarchical_vae:HierarchicalVAE", LIKELIHOOD,
                              "VAE with two or more stochastic layers", VAE_TRAINING),
    "atlas-vae": Entry("latlas.models.atlas_vae:AtlasVAE", LIKELIHOOD,
                       "VAE of several charts that share the data among them: spheres, tori, "
                       "classes that lie apart", {"weight_decay": 0.05}),
    "beta-tc-vae": Entry("latlas.models.disentangling:BetaTCVAE", LIKELIHOOD,
                         "VAE whose total correlation weighs beta: independent latent dimensions",
                         VAE_TRAINING),
    "factor-vae": Entry("latlas.models.disentangling:FactorVAE", LIKELIHOOD,
                        "VAE whose total correlation a discriminator estimates: independent latent "
                        "dimensions", VAE_TRAINING),
    "conditional-vae": Entry("latlas.models.conditional_vae:ConditionalVAE", LIKELIHOOD,
                             "VAE given a label, or a part of the image (completion)",
                             VAE_TRAINING),
    "debiasing-vae": Entry("latlas.models.debiasing_vae:DebiasingVAE", LIKELIHOOD | {"classify"},
                           "classifier with a VAE, by whose latents under-represented examples "
                           "come more often", VAE_TRAINING),
    "gan": Entry("latlas.models.gan:GAN", GENERATOR,
                 "generative adversarial network: sharp samples, no encoder", GAN_TRAINING),
    "conditional-gan": Entry("latlas.models.gan:ConditionalGAN", GENERATOR,
                             "GAN that samples the class that is asked for", GAN_TRAINING),
    "progressive-gan": Entry("latlas.models.progressive_gan:ProgressiveGAN", GENERATOR,
                             "GAN that grows from 4 pixels upward", EQUALISED_TRAINING),
    "style-gan": Entry("latlas.models.style_gan:StyleGAN", STYLES,
                       "GAN of images whose every layer has a style: mixing, truncation, edits",
                       EQUALISED_TRAINING),
    "pix2pix": Entry("latlas.models.translation:Pix2Pix", TRANSLATOR,
                     "the other image of a pair: edges to photo, map to scene",
                     TRANSLATION_TRAINING),
    "cycle-gan": Entry("latlas.models.cycle_gan:CycleGAN", TRANSLATOR,
                       "from one domain to another and back, without pairs",
                       TRANSLATION_TRAINING | {"batch_size": 0}),
    "flow-matching": Entry("latlas.models.flow_matching:FlowMatching",
                           frozenset({"sample", "score"}),
                           "a flow from noise to examples, without an encoder: tables, points, "
                           "latents", {"learning_rate": 2e-3}),
    "latent-flow": Entry("latlas.models.latent_flow:LatentFlow", AUTOENCODER,
                         "autoencoder with spatial latents, and a flow that generates them: photos "
                         "and other images", {"betas": (0.9, 0.99), "learning_rate": 3e-3}),
}


def list_models() -> dict[str, str]:
    """Name and one line of every model."""
    return {name: entry.summary for name, entry in MODELS.items()}


#: every ``module:Class`` that a person has named in this process
_named: set[str] = set()


def require_named(name: str, file: Path) -> None:
    """RunError for a ``module:Class`` that stands in a file and that no person has named: to import
    it would run whatever code came with the file."""
    if name not in MODELS and name not in _named:
        if ":" not in name:
            raise RunError(f"{file}: {unknown('model', name, MODELS)}")
        raise RunError(f"{file} names the model {name}, whose code runs only if you name it "
                       "yourself", what=str(file), option="model",
                       hint=f"if you trust it: {say_option('model', name)}")


def get(name: str) -> Entry:
    """The entry of a model's name, or of a ``module:Class`` in the current folder or among the
    installed packages, which is imported: of a name out of a file ask :func:`require_named`."""
    if name in MODELS:
        return MODELS[name]
    if ":" not in name:
        raise ConfigError(unknown("model", name, MODELS))
    _named.add(name)
    if str(Path.cwd()) not in sys.path:  # a console script starts without the current folder
        sys.path.append(str(Path.cwd()))
    model = load_class(Entry(name, frozenset(), ""))
    if not hasattr(model, "Config"):
        raise ConfigError(f"{name} has no Config: give the class its config dataclass as `Config`")
    from latlas.core.model import capabilities

    return Entry(name, capabilities(model), (model.__doc__ or name).strip().splitlines()[0])


def load_class(entry: Entry) -> Any:
    """The class an entry names; this imports torch."""
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import model {entry.target!r}: {error}") from error


def build(name: str, config: Any, space: Any, **modules: Any) -> Model:
    """A fresh model of a Space or PairSpace; ``modules`` are networks of the user's own
    (``encoder=…``)."""
    cls = load_class(get(name))
    for module in modules:
        if module not in inspect.signature(cls).parameters:
            raise ConfigError(f"{name} takes no {module} of your own")
    return cls(config, space, **modules)
