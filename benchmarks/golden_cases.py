"""What ``golden.py`` trains: tiny data of every kind, and every model in its variants."""

from __future__ import annotations

import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def blobs(shape: tuple[int, int, int], n: int, seed: int, top: int) -> tuple[Any, Any]:
    """Images of a spot whose place depends on the class, of three classes, the last one rare."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=(0.5, 0.35, 0.15))
    row, column = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    centre = rng.uniform(1, 3, (n, 2)) + label[:, None]
    distance = (row - centre[:, :1, None]) ** 2 + (column - centre[:, 1:, None]) ** 2
    ink = np.exp(-distance / 6)[:, None] * rng.uniform(0.5, 1.0, (n, shape[0], 1, 1))
    return np.rint(ink * top).astype(np.uint8), label


def save(path: Path, x: Any, y: Any = None) -> str:
    """In parts that do not lie in their usual order: 70 of 100 to train on, twice 15 held out."""
    n = len(x)
    cuts = {"test": slice(n * 17 // 20, n), "val": slice(n * 7 // 10, n * 17 // 20),
            "train": slice(0, n * 7 // 10)}
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    np.savez(path, **{f"{k}_{part}": v[cut] for part, cut in cuts.items()
                      for k, v in arrays.items()})
    return str(path)


def write_data(folder: Path) -> dict[str, Any]:
    """A source of every kind, by name."""
    x, y = blobs((1, 8, 8), 340, 0, 16)
    wide, kinds = blobs((3, 9, 12), 240, 1, 255)
    between = blobs((1, 24, 24), 80, 2, 255)[0]
    two = np.concatenate([x // 2, 16 - x], 1)
    drift = np.pad(blobs((1, 8, 8), 18, 3, 255)[0][:, 0], [(0, 0), (0, 8), (0, 8)])
    film = np.stack([np.roll(drift, i, (1, 2))[:, :12, :12] for i in range(5)], 1)[..., None]
    other = np.concatenate([film[:12, :4] // 2, 255 - film[:12, :4]], -1)
    rng = np.random.default_rng(4)
    factors = rng.integers(0, (4, 5), (560, 2))
    grid = np.c_[factors, factors.sum(1)] + 0.1 * rng.standard_normal((560, 3))
    np.savez(folder / "factors.npz", x=grid.astype(np.float32), factors=factors)
    one, both, few, late, far = (save(folder / f"{name}.npz", array) for name, array in (
        ("one", x[:60]), ("both", two[:60]), ("few", two[-50:]), ("late", 16 - x[-50:]),
        ("far", other)))
    return {"images": {"source": save(folder / "x.npz", x, y), "levels": 17},
            "wide": save(folder / "wide.npz", wide, kinds),
            "between": save(folder / "between.npz", between),
            "real": save(folder / "real.npz", (x[:90] / 16).astype(np.float32)),
            "table": table(folder / "table.csv", rng, mixed=False),
            "mixed": table(folder / "mixed.csv", rng, mixed=True),
            "factors": str(folder / "factors.npz"), "points": {"source": "ring", "n": 300},
            "pairs": {"source": [one, both], "paired": True},
            "domains": {"source": [one, few]}, "alike": {"source": [one, late]},
            "frames": {"source": [save(folder / "film.npz", film), far]},
            "voices": {"source": [voices(folder / "low", 110), voices(folder / "high", 310)],
                       "n_fft": 64, "hop": 16, "window": 16}}


def table(path: Path, rng: np.random.Generator, mixed: bool) -> str:
    """Correlated columns of different units; mixed ones have words, flags, counts and gaps."""
    x = rng.standard_normal((260, 2)) @ rng.standard_normal((2, 4))
    x = (x + 0.3 * rng.standard_normal(x.shape)) * 10.0 ** np.arange(4)
    rows = [[f"{v:.6g}" for v in row] for row in x]
    if mixed:
        more = zip(rng.poisson(3, 260), rng.choice(["red", "green", ""], 260),
                   rng.choice(["true", "false"], 260), rng.choice(["a", "b"], 260), strict=True)
        rows = [["" if rng.random() < 0.1 else row[0], *row[1:], *map(str, words)]
                for row, words in zip(rows, more, strict=True)]
    head = "a,b,c,d,count,colour,flag,class" if mixed else "a,b,c,d"
    path.write_text("\n".join([head, *map(",".join, rows)]) + "\n")
    return str(path)


def voices(folder: Path, pitch: float) -> str:
    """Recordings of a few harmonics that rise and fade, so many that every split has some."""
    folder.mkdir()
    for i in range(24):
        t = np.arange(400 + 20 * (i % 5)) / 8000
        turns = 2 * np.pi * (pitch + 2 * i) * (t + 0.3 * t**2)
        x = 0.3 * np.exp(-2 * t) * sum(np.sin(k * turns) / k for k in (1, 2, 3))
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.rint(x * 32767).astype("<i2").tobytes())
    return str(folder)


# ------------------------------------------------------------------------------ cases

@dataclass(frozen=True)
class Case:
    """A model on data, and what is asked of it.

    Attributes:
        label: what its lines begin with, whatever the model is called.
        words: what it can do, and what more is tried of it.
        condition: of a conditional model: the option that names it.
        spoilt: the batch of the third step becomes NaN, so that training has to go back.
    """

    label: str
    model: str
    data: str
    words: str
    settings: dict[str, Any] = field(default_factory=dict)
    condition: dict[str, Any] = field(default_factory=dict)
    spoilt: bool = False

    @property
    def can(self) -> set[str]:
        return set(self.words.split())

    @property
    def modules(self) -> dict[str, Any]:
        """Networks from outside among the settings."""
        return {k: v for k, v in self.settings.items() if isinstance(v, nn.Module)}

    def batch_condition(self, source: Any) -> dict[str, Any]:
        """``condition``, where images of which a part is known are those of the data."""
        return {k: source if v is ... else v for k, v in self.condition.items()}


SAMPLES = "sample decode evaluate"
CODES = "sample decode encode reconstruct weights evaluate"
BOUND = f"{CODES} score elbo iw"
ALL = "naive ais outliers parts"
PICTURES, WIDE, TABLE, MIXED, POINTS = "images", "wide", "table", "mixed", "points"
MLP = {"width": 8, "depth": 1, "latent_dim": 3}
CONV = {"network": "conv", "width": 4, "depth": 1, "latent_dim": 3}
#: far enough for latents to vary and images to depend on them
FAR = {"images": 320, "learning_rate": 0.03}
SMALL_FLOW = {"width": 8, "depth": 1, "autoencoder_share": 0.6, "draws": 2, "steps": 3}
LABEL, PART = {"label": "1"}, {"given": ...}
GROWN = {"width": 4, "latent_dim": 3, "depth": 0}
TURNED = {"width": 4, "depth": 1, "images": 20, "batch_size": 4}


def cases() -> list[Case]:
    """All of them, the plain ones of every model first."""
    return [*plain(), *vaes(), *other_codes(), *adversarial(), *translations()]


def plain() -> list[Case]:
    """Every model once, with all that it can do."""
    bound = f"{BOUND} {ALL}"
    vae_like = ("vae", "beta-vae", "iwae", "hierarchical-vae", "factor-vae", "atlas-vae")
    return [
        Case("pca", "pca", PICTURES, f"{CODES} score exact iw {ALL} classifier",
             {"latent_dim": 3}),
        Case("ae", "ae", PICTURES, f"{CODES} observed outliers parts", MLP | FAR),
        Case("dae", "dae", PICTURES, f"{CODES} denoise observed outliers parts", MLP | FAR),
        *(Case(name, name, PICTURES, bound, MLP | FAR) for name in vae_like),
        Case("beta-tc-vae", "beta-tc-vae", PICTURES, bound, MLP | FAR | {"kl_warmup": 0.3}),
        Case("debiasing-vae", "debiasing-vae", PICTURES, f"{bound} classify", MLP | FAR),
        Case("conditional-vae", "conditional-vae", PICTURES, f"{BOUND} naive ais parts", MLP | FAR,
             LABEL),
        Case("flow-matching", "flow-matching", TABLE, "sample score exact evaluate parts",
             {"width": 8, "depth": 1}),
        Case("latent-flow", "latent-flow", PICTURES, f"{CODES} outliers parts", SMALL_FLOW),
        Case("gan", "gan", PICTURES, SAMPLES, MLP),
        Case("conditional-gan", "conditional-gan", PICTURES, SAMPLES, MLP, LABEL),
        Case("style-gan", "style-gan", PICTURES, f"{SAMPLES} styles",
             GROWN | {"style_dim": 8, "mapping_depth": 1}),
        Case("progressive-gan", "progressive-gan", WIDE, SAMPLES, GROWN | {"images": 128}),
        Case("pix2pix", "pix2pix", "pairs", "to-B evaluate", TURNED),
        Case("cycle-gan", "cycle-gan", "domains", "to-A to-B evaluate", TURNED | {"blocks": 1}),
    ]


def vaes() -> list[Case]:
    """Likelihoods, priors, networks and data of ``vae``, and ways to train it."""
    def vae(label: str, words: str, data: str = PICTURES, **settings: Any) -> Case:
        return Case(f"vae/{label}", "vae", data, words, {**MLP, **settings})

    likelihoods = ("bernoulli", "gaussian", "gaussian-learnt", "gaussian-pixel",
                   "discretised-logistic")
    return [
        *(vae(name, BOUND, likelihood=name) for name in likelihoods),
        vae("dynamic", BOUND, binarize="dynamic", kl_warmup=0.5),
        vae("threshold", BOUND, binarize="threshold", kl_warmup=0.5, kl_weight_start=4.0),
        vae("mixture", f"{BOUND} naive ais outliers", prior="mixture", prior_components=4, **FAR),
        vae("vamp", f"{BOUND} naive", prior="vamp", prior_components=7, binarize="dynamic"),
        vae("flow", f"{BOUND} naive", TABLE, prior="flow", prior_components=3),
        vae("conv", f"{BOUND} {ALL}", WIDE, **CONV, **FAR),
        vae("table", f"{BOUND} {ALL}", TABLE, **FAR),
        vae("mixed", f"{BOUND} {ALL}", MIXED, **FAR),
        vae("points", BOUND, POINTS, likelihood="gaussian-learnt"),
        vae("real", BOUND, "real"),
        vae("factors", f"{CODES} classifier", "factors", **FAR),
        vae("own", BOUND, **own_networks()),
        vae("trimmed", "sample", trimmed_fraction=0.2, dropout=0.4, weight_decay=0.5),
        vae("stages", "sample", schedule="stages", clip_norm=1.0, ema=0.5, images=160),
        vae("constant", "sample", schedule="constant", warmup=0.3, ema=0.0, betas=(0.8, 0.9),
            adam_eps=1e-5, images=None, epochs=0.5),
        vae("patience", "sample", images=1600, patience=4, validate_every=16, learning_rate=0.1,
            schedule="constant", ema=0.0),  # stopped while the best weights are not the last
        vae("everything", "sample", split="all", batch_size=0, images=200),
    ]


def other_codes() -> list[Case]:
    """Variants of the other models that encode, and of flow matching."""
    debias, given = "debiasing-vae", "conditional-vae"
    exact = f"{CODES} score exact"
    return [
        Case("pca/wide", "pca", WIDE, exact, {"latent_dim": 3, "solver": "randomised"}),
        Case("pca/table", "pca", TABLE, f"{exact} naive", {"latent_dim": 3, "ddof": 0}),
        Case("pca/mixed", "pca", MIXED, f"{exact} outliers", {"latent_dim": 3}),
        Case("ae/conv", "ae", WIDE, CODES, CONV), Case("ae/mixed", "ae", MIXED, CODES, MLP),
        Case("dae/mask", "dae", TABLE, f"{CODES} denoise", MLP | {"corruption": "mask"}),
        Case("beta-vae/free-bits", "beta-vae", PICTURES, BOUND, MLP | {"free_bits": 0.1}),
        Case("iwae/table", "iwae", TABLE, BOUND, MLP | {
            "gradient": "reparameterised", "kl_warmup": 0.5}),
        Case("iwae/conv", "iwae", WIDE, BOUND, CONV | {"draws": 3}),
        Case("iwae/average", "iwae", MIXED, BOUND, MLP | {"bound": "average", "draws": 2}),
        Case("hierarchical-vae/three", "hierarchical-vae", PICTURES, f"{BOUND} naive", MLP | {
            "latents": "4,3,2", "latent_dim": 0, "draws": 3}),
        Case("hierarchical-vae/table", "hierarchical-vae", TABLE, BOUND, MLP | {
            "gradient": "dreg", "bound": "average", "draws": 2}),
        Case("hierarchical-vae/mixture", "hierarchical-vae", PICTURES, f"{BOUND} naive", MLP | {
            "prior": "mixture", "prior_components": 4}),
        Case("atlas-vae/points", "atlas-vae", POINTS, f"{BOUND} naive", MLP | {
            "latent_dim": 1, "n_charts": 3}),
        Case("atlas-vae/conv", "atlas-vae", WIDE, BOUND, CONV | {"n_charts": 3, "balance": 0.0}),
        Case("atlas-vae/binary", "atlas-vae", PICTURES, BOUND, MLP | {
            "n_charts": 2, "binarize": "dynamic", "kl_warmup": 0.5}),
        Case("beta-tc-vae/table", "beta-tc-vae", TABLE, BOUND, MLP),
        Case("factor-vae/points", "factor-vae", POINTS, BOUND, MLP),
        Case("conditional-vae/part", given, PICTURES, f"{BOUND} naive", MLP | {
            "condition": "part", "part": "random"}, PART),
        Case("conditional-vae/part-conv", given, WIDE, BOUND, CONV | {"condition": "part"},
             PART),
        Case("conditional-vae/between", given, "between", BOUND, MLP | {
            "condition": "part", "part": "top"}, PART),
        Case("conditional-vae/vamp", given, PICTURES, f"{BOUND} naive", MLP | {
            "prior": "vamp", "prior_components": 7}, LABEL),
        Case("debiasing-vae/maximum", debias, WIDE, f"{BOUND} classify", CONV | {
            "reweighting": "maximum", "debias_classes": "0,1", "images": 160}),
        Case("debiasing-vae/loss", debias, PICTURES, f"{BOUND} classify", MLP | {
            "reweighting": "loss", "neighbours": 3}),
        Case("debiasing-vae/all", debias, PICTURES, f"{BOUND} classify", MLP | FAR | {
            "within": "all", "share": 0.4, "clip": 3.0, "bins": 5}),
        Case("debiasing-vae/none", debias, PICTURES, f"{CODES} classify", MLP | {
            "reweighting": "none"}),
        Case("flow-matching/points", "flow-matching", POINTS, "sample score exact",
             {"width": 8, "depth": 2, "steps": 4}),
        Case("flow-matching/pictures", "flow-matching", PICTURES, "sample score exact",
             {"width": 8, "depth": 1}),
        Case("latent-flow/wide", "latent-flow", WIDE, CODES, SMALL_FLOW | {
            "condition": "label", "guidance": 2.0, "stages": 2, "latent_channels": 3}, LABEL),
        Case("flow-matching/mixed", "flow-matching", MIXED, "sample score exact evaluate",
             {"width": 8, "depth": 1}),
    ]


def adversarial() -> list[Case]:
    """Objectives, penalties, augmentation, networks and groups of the models with a critic."""
    def gan(label: str, words: str, data: str = PICTURES, **settings: Any) -> Case:
        return Case(f"gan/{label}", "gan", data, words, {**MLP, **settings})

    def alone(objective: str, penalty: str, **more: Any) -> Case:
        return gan(f"{objective}-{penalty}", "sample", prior="normal", objective=objective,
                   penalty=penalty, **more)

    mapping = {"style_dim": 8, "mapping_depth": 1}
    return [
        gan("alone", f"{SAMPLES} observed", prior="normal"), gan("groups", SAMPLES, content_dims=0),
        gan("points", SAMPLES, POINTS), gan("table", SAMPLES, TABLE), gan("mixed", SAMPLES, MIXED),
        gan("conv", SAMPLES, WIDE, **CONV),
        gan("conv-alone", SAMPLES, WIDE, **CONV, prior="normal"),
        gan("own", SAMPLES, **own_players()),
        *(alone(objective, "auto", images=64) for objective in (
            "relativistic", "non-saturating", "minimax", "least-squares", "hinge", "wasserstein")),
        *(alone("non-saturating", penalty, gamma=2.0, gamma_end=0.1, r1_interval=2)
          for penalty in ("none", "r1", "r2", "r1+r2", "gp")),
        *(alone("relativistic", penalty, r1_interval=2) for penalty in ("r1", "gp")),
        gan("ada", "sample", WIDE, **CONV, augment="ada", r1_interval=4, images=320,
            learning_rate=0.005),
        gan("diff", "sample", WIDE, **CONV, augment="diff", prior="normal"),
        gan("spectral", SAMPLES, WIDE, **CONV, objective="hinge", penalty="none",
            spectral_norm=True, minibatch_std=4),
        Case("gan/rolled-back", "gan", PICTURES, "sample", MLP | {"images": 128}, spoilt=True),
        Case("conditional-gan/conv", "conditional-gan", WIDE, SAMPLES, CONV | {
            "augment": "diff"}, LABEL),
        Case("conditional-gan/alone", "conditional-gan", PICTURES, SAMPLES, MLP | {
            "prior": "normal", "class_loss_weight": 0.0, "objective": "hinge"}, LABEL),
        Case("conditional-gan/points", "conditional-gan", POINTS, "sample", MLP,
             {"label": "(1, 0)"}),
        Case("style-gan/wide", "style-gan", WIDE, f"{SAMPLES} styles", GROWN | mapping | {
            "path_weight": 0.0, "objective": "non-saturating", "style_mixing": 0.0}),
        Case("style-gan/lazy", "style-gan", PICTURES, "sample", GROWN | mapping | {
            "path_every": 2, "r1_interval": 3, "minibatch_std": 0, "augment": "diff",
            "penalty": "r1"}),
        Case("progressive-gan/full", "progressive-gan", PICTURES, SAMPLES, GROWN | {
            "grow": False, "objective": "wasserstein"}),
        Case("progressive-gan/fast", "progressive-gan", WIDE, "sample", GROWN | {
            "grow_share": 0.2, "fade_share": 0.25, "augment": "ada", "images": 128}),
    ]


def translations() -> list[Case]:
    """Networks, losses and data of the models that translate."""
    def pair(label: str, **settings: Any) -> Case:
        return Case(f"pix2pix/{label}", "pix2pix", "pairs", "to-B evaluate", {**TURNED, **settings})

    def cycle(label: str, data: str, **settings: Any) -> Case:
        return Case(f"cycle-gan/{label}", "cycle-gan", data, "to-A to-B evaluate",
                    {**TURNED, **settings})

    return [
        pair("unet", network="unet", blocks=1, horizontal_flip=True),
        pair("residual", network="residual", blocks=1, dropout=0.1, objective="hinge"),
        pair("alone", adversarial=0.0, l1=10.0),
        pair("features", features=1.0, objective="non-saturating", penalty="r1",
             discriminator_depth=1, discriminator_width=6),
        pair("relativistic", objective="relativistic", penalty="gp", r1_interval=2),
        cycle("unet", "domains", network="unet", replay_buffer=0, penalty="r1+r2",
              r1_interval=2),
        cycle("residual", "alike", network="residual", blocks=1, replay_buffer=5,
              horizontal_flip=True),
        cycle("columns", "domains", network="columns", blocks=1),
        cycle("identity", "alike", network="unet", identity=2.0, cycle=5.0, objective="wasserstein",
              penalty="gp"),
        cycle("frames", "frames", network="unet", replay_buffer=0),
        cycle("frames-residual", "frames", network="residual", blocks=1, temporal=5.0),
        cycle("voices", "voices"),
        cycle("voices-unet", "voices", network="unet", temporal=0.0),
    ]


def own_networks() -> dict[str, nn.Module]:
    """An encoder and a decoder from outside."""
    torch.manual_seed(7)
    return {"encoder": nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 6)),
            "decoder": nn.Sequential(nn.Linear(3, 128), nn.Unflatten(1, (2, 8, 8)))}


def own_players() -> dict[str, nn.Module]:
    """A generator and a discriminator from outside."""
    torch.manual_seed(8)
    return {"generator": nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))),
            "discriminator": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
                                           nn.Linear(8, 1))}
