"""One contract for every entry of MODELS, and for a two-player model from outside the table."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from latlas import models
from latlas.core import model as core
from latlas.core.devices import DistributedContext
from latlas.core.distributions import Distribution
from latlas.core.errors import RunError
from latlas.core.model import Batch
from latlas.core.noise import Noise
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset, first_side
from latlas.engine.progress import Progress
from latlas.engine.trainer import Trainer
from latlas.models.conditional_vae import hide
from latlas.run import Run

#: what a word of ``provides`` promises
PROTOCOLS = {"sample": {core.Samples}, "encode": {core.Encodes}, "decode": {core.Decodes},
             "reconstruct": {core.Encodes, core.Decodes}, "score": {core.ScoresDensity},
             "denoise": {core.Encodes, core.Decodes}, "mix": {core.HasStyles},
             "translate": {core.Translates}, "classify": {core.Classifies}}
TOY = "toy_gan:ToyGAN"


@dataclass(eq=False)
class Case:
    """A model on data. ``coupled`` says which term ties the examples of a batch together."""

    name: str
    data: Callable[[], Dataset] = tiny.images
    settings: dict[str, Any] = field(default_factory=dict)
    modules: Callable[[], dict[str, nn.Module]] = dict
    coupled: str = ""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name}{'-' if self.label else ''}{self.label}"

    def config(self) -> Any:
        return tiny.small(self.name, **self.settings)

    def build(self, data: Dataset, seed: int = 0) -> core.Model:
        return tiny.build(self.name, data, self.config(), tiny.modules_of(self.modules), seed)

    def train(self, path: Any, **more: Any) -> core.Model:
        return tiny.train(path, self.name, self.data(), self.config(), modules=self.modules,
                          **more)[0]


def wide() -> Dataset:
    return tiny.images((3, 9, 12), levels=256)


def between() -> Dataset:
    """An image that gets a perceptron, and with a mask beside it would get convolutions."""
    return tiny.images((1, 24, 24))


def own() -> dict[str, nn.Module]:
    return {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 6)),
            "decoder": nn.Sequential(nn.Linear(3, 128), nn.Unflatten(1, (2, 8, 8)))}


def own_chain() -> dict[str, nn.Module]:
    """Two numbers next to the data, one above."""
    return {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
            "decoder": nn.Sequential(nn.Linear(2, 128), nn.Unflatten(1, (2, 8, 8))),
            "up": nn.ModuleList([nn.Linear(2, 2)]), "down": nn.ModuleList([nn.Linear(1, 4)])}


def own_atlas() -> dict[str, nn.Module]:
    """Three coordinates in either of two charts."""
    return {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 14)),
            "decoder": nn.Sequential(nn.Linear(5, 128), nn.Unflatten(1, (2, 8, 8)))}


def own_ae() -> dict[str, nn.Module]:
    return {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}


#: where outputs are subtracted, the bias of a unit that is on for real examples and fakes alike has
#: rounding errors for a gradient, and Adam makes whole steps of them
CANCELS_NOT = {"objective": "non-saturating"}
CONV = {"network": "conv", "width": 4, "depth": 1}
#: the turns of the discriminator and of the flow are within the five steps in which every parameter
#: must be reached
LATENT_FLOW = {"autoencoder_share": 0.1, "draws": 2, "steps": 4}
VARIANTS = [
    Case("pca", wide, label="wide"), Case("pca", tiny.table, label="table"),
    Case("ae", wide, CONV, label="conv"), Case("ae", tiny.table, label="table"),
    Case("ae", modules=own_ae, label="own-encoder"),
    Case("dae", settings={"corruption": "mask"}, label="mask"),
    Case("vae", wide, CONV, label="conv"), Case("vae", tiny.table, label="table"),
    Case("vae", tiny.points, label="points"), Case("vae", modules=own, label="own"),
    Case("vae", settings={"binarize": "dynamic", "kl_warmup": 0.5}, label="binary"),
    Case("vae", settings={"likelihood": "gaussian"}, label="gaussian"),
    Case("vae", settings={"likelihood": "gaussian-learnt"}, label="learnt"),
    Case("vae", settings={"likelihood": "gaussian-pixel"}, label="pixel"),
    Case("beta-vae", settings={"free_bits": 0.1}, coupled="free bits", label="free-bits"),
    Case("iwae", tiny.table, {"gradient": "reparameterised", "kl_warmup": 0.5}, label="table"),
    Case("iwae", wide, CONV, label="conv"), Case("iwae", modules=own, label="own"),
    Case("hierarchical-vae", settings={"latents": "4,3,2", "latent_dim": 0, "draws": 3},
         label="three"),
    Case("hierarchical-vae", tiny.table, {"gradient": "dreg", "bound": "average", "draws": 2},
         label="table"),
    Case("hierarchical-vae", modules=own_chain, label="own"),
    Case("vae", settings={"prior": "mixture"}, label="mixture"),
    Case("vae", settings={"prior": "vamp", "prior_components": 7, "binarize": "dynamic"},
         label="vamp"),
    Case("vae", tiny.table, {"prior": "flow", "prior_components": 3}, label="flow"),
    Case("beta-vae", tiny.table, {"prior": "vamp", "prior_components": 7}, label="vamp-table"),
    Case("conditional-vae", settings={"prior": "vamp", "prior_components": 7}, label="vamp"),
    Case("conditional-vae", settings={"condition": "part", "part": "random", "prior": "vamp",
                                      "prior_components": 7}, label="vamp-part"),
    Case("flow-matching", tiny.table, label="table"),
    Case("latent-flow", wide, LATENT_FLOW | {"condition": "label", "guidance": 2.0}, label="wide"),
    Case("hierarchical-vae", settings={"prior": "mixture", "prior_components": 4}, label="mixture"),
    Case("iwae", tiny.table, {"prior": "vamp", "prior_components": 7}, label="vamp"),
    Case("beta-tc-vae", tiny.table, coupled="total correlation", label="table"),
    Case("factor-vae", tiny.points, coupled="permuted codes", label="points"),
    Case("conditional-vae", settings={"condition": "part", "part": "random"}, label="part"),
    Case("conditional-vae", wide, CONV | {"condition": "part"}, label="part-conv"),
    Case("conditional-vae", between, {"condition": "part"}, label="part-auto"),
    Case("atlas-vae", tiny.points, {"latent_dim": 1}, label="points"),
    Case("atlas-vae", wide, CONV | {"n_charts": 3, "balance": 0.0}, label="conv"),
    Case("atlas-vae", tiny.table, {"n_charts": 2, "kl_warmup": 0.5}, label="table"),
    Case("atlas-vae", settings={"n_charts": 2}, modules=own_atlas, label="own"),
    Case("gan", tiny.points, label="points"), Case("gan", wide, CONV, label="conv"),
    Case("gan", tiny.table, {"objective": "wasserstein"}, label="gp"),
    Case("gan", settings={"objective": "non-saturating", "penalty": "r1", "r1_interval": 4,
                          "augment": "ada"}, coupled="how much is augmented", label="ada"),
    Case("gan", wide, CONV | {"objective": "least-squares", "penalty": "none",
                              "spectral_norm": True, "minibatch_std": 4},
         coupled="minibatch deviation", label="spectral"),
    Case("conditional-gan", wide, CONV | {"augment": "diff"}, label="conv"),
    Case("style-gan", wide, {"depth": 0, "width": 4, "path_weight": 0.0} | CANCELS_NOT,
         label="wide"),
    Case("progressive-gan", wide, {"depth": 0, "width": 4, "grow_share": 0.2}, label="wide"),
    Case("pix2pix", tiny.pairs, {"objective": "non-saturating", "penalty": "r1", "features": 1.0,
         "depth": 1, "blocks": 1}, label="eager"),
    Case("pix2pix", lambda: tiny.pairs((1, 9, 12)), {"network": "residual", "blocks": 1,
         "adversarial": 0.0, "dropout": 0.1,
         "horizontal_flip": True}, label="alone"),
    Case("cycle-gan", tiny.domains, {"network": "unet", "replay_buffer": 0, "penalty": "r1+r2",
         "r1_interval": 2}, label="lazy"),
    Case("cycle-gan", tiny.clips, {"network": "unet", "replay_buffer": 0}, label="frames"),
    Case("cycle-gan", tiny.domains, {"network": "columns", "width": 2, "blocks": 2},
         coupled="earlier fakes", label="columns"),
    Case("debiasing-vae", wide, CONV | {"reweighting": "maximum", "debias_classes": "a,c"},
         label="conv"),
    Case(TOY, tiny.points, label="ring"),
]
COUPLED = {"beta-tc-vae": "total correlation", "factor-vae": "permuted codes",
           "style-gan": "the running mean of path lengths", "cycle-gan": "earlier fakes"}
#: fully grown within the five steps in which every parameter must be reached
SETTINGS: dict[str, dict[str, Any]] = {"progressive-gan": {"grow_share": 0.2} | CANCELS_NOT,
                                       "cycle-gan": {"width": 8, "blocks": 2},
                                       "latent-flow": LATENT_FLOW}
CASES = [Case(name, partial(tiny.data_for, name), SETTINGS.get(name, {}),
              coupled=COUPLED.get(name, "")) for name in models.MODELS] + VARIANTS


# of the module's scope, so that the tests of a case follow each other and share what it trained
every_case = pytest.mark.parametrize("case", CASES, ids=str, scope="module")
trained_case = pytest.mark.parametrize("case", [c for c in CASES if c.name != "pca"], ids=str,
                                       scope="module")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model and the folder of a case, trained once for all tests that change neither."""
    last: dict[Case, tuple[core.Model, Path]] = {}

    def once(case):
        if case not in last:
            last.clear()
            path = tmp_path_factory.mktemp("case") / "run"
            last[case] = case.train(path), path
        return last[case]

    return once


def batch_of(data: Data, n: int = 5) -> Batch:
    """Of data of two sides of A."""
    return next(iter(Sweep(first_side(data), n)))


def batch_condition(model: core.Model, batch: Batch) -> Tensor | None:
    """What a conditional model is told about these examples."""
    if model.takes_condition == "part":
        return hide(batch.x, "left", Noise(0))
    return model.conditioning(batch, Noise(0))


@torch.no_grad()
def outputs(model: core.Model, data: Data) -> dict[str, Tensor]:
    """Everything the model can do with five examples."""
    batch, result = batch_of(data), {}
    c = batch_condition(model, batch)
    if isinstance(model, core.Samples):
        result["sample"] = model.sample(5, noise=Noise(3), condition=c)
    if isinstance(model, core.Encodes):
        result["encode"] = model.encode(batch.x, condition=c).mean
    if isinstance(model, core.Decodes):
        z = Noise(4).normal(5, model.latent_dim)
        result["decode"] = model.decode(z, condition=c).mean
    if isinstance(model, core.ScoresDensity):
        nats, ess = model.log_likelihood(batch.x, noise=Noise(5), draws=7, condition=c)
        result |= {"nats": nats, "ess": ess}
    if isinstance(model, core.Translates):
        result |= {f"to {domain}": model.translate(batch_of(side).x, to=domain)
                  for domain, side in (("B", data.a), ("A", data.b)) if domain in model.ways}
    return result


def test_the_contract_covers_the_table():
    assert {case.name for case in CASES} >= set(models.MODELS)


@every_case
def test_provides_is_what_the_protocols_say(case):
    model, provides = case.build(case.data()), models.get(case.name).provides
    assert provides <= PROTOCOLS.keys()
    can = {word for word, needs in PROTOCOLS.items()
           if word != "denoise" and all(isinstance(model, p) for p in needs)}
    assert provides - {"denoise"} == can
    assert isinstance(model, core.Trains) != isinstance(model, core.FitsDirectly)


@every_case
def test_shapes_dtypes_and_finite_numbers(case, trained):
    data = case.data()
    model, _ = trained(case)
    result = outputs(model, data)
    latents = {"encode": (5, model.latent_dim), "nats": (5,), "ess": (5,)}
    if isinstance(data, PairDataset):
        latents |= {"to B": (5, *data.b.space.shape)}
    for name, value in result.items():
        assert value.shape == latents.get(name, (5, *first_side(data).space.shape)), name
        expected = (torch.float32, torch.float64) if name in ("nats", "ess") else (torch.float32,)
        assert value.dtype in expected, name
        assert value.isfinite().all() or name == "ess", name
    if "ess" in result and not model.exact_likelihood:
        assert ((result["ess"] > 1 - 1e-9) & (result["ess"] < 7 + 1e-9)).all()


@every_case
def test_decoding_keeps_leading_dimensions(case):
    data = case.data()
    model = case.build(data).eval()
    if not isinstance(model, core.Decodes):
        return
    c = batch_condition(model, batch_of(data))
    z = torch.randn(2, 5, model.latent_dim)
    with torch.no_grad():
        both = model.decode(z, condition=c)
        second = model.decode(z[1], condition=c)
    assert isinstance(both, Distribution)
    assert both.mean.shape == (2, 5, *data.space.shape)
    torch.testing.assert_close(both.mean[1], second.mean)


@every_case
def test_log_conditional_is_the_decoders_in_data_units(case):
    data = case.data()
    model, batch = case.build(data).eval(), batch_of(data)
    if not isinstance(model, core.Observes):
        return
    x, c = model.preprocess(batch.x, Noise(0)), batch_condition(model, batch)
    z = torch.randn(3, 5, model.latent_dim)
    with torch.no_grad():
        result = model.log_conditional(x, z, c)
        inside = model.decode(z, condition=c).log_prob(x)
    density = not hasattr(model, "likelihood") or model.likelihood.density
    volume = data.space.log_volume if density else 0.0
    assert result.shape == (3, 5)
    torch.testing.assert_close(result.float(), inside.float() - volume, rtol=1e-4, atol=1e-2)


@every_case
def test_encoding_is_deterministic_and_item_by_item(case):
    data = case.data()
    model = case.build(data).eval()
    if not isinstance(model, core.Encodes):
        return
    batch = batch_of(data)
    c = batch_condition(model, batch)
    with torch.no_grad():
        code = model.encode(batch.x, condition=c).mean
        again = model.encode(batch.x, condition=c).mean
        alone = model.encode(batch.x[:2], condition=None if c is None else c[:2]).mean
    assert torch.equal(code, again)
    torch.testing.assert_close(alone, code[:2])


@trained_case
def test_gradients_reach_exactly_the_phases_parameters(case, monkeypatch):
    monkeypatch.setattr("latlas.models.latent_flow.LEARNT", 1)
    data = case.data()
    model = case.build(data)
    model.prepare(Sweep(data), len(data))
    trainer = Trainer(model, tiny.options(), budget=320, precision="fp32")
    reached: dict[tuple[str, ...], set[str]] = {}

    def look(modules: tuple[str, ...]) -> None:
        names = {name for name, p in model.named_parameters() if p.grad is not None}
        mine = {name for name, p in model.named_parameters() if name.split(".")[0] in modules}
        assert names <= mine, f"gradients of {modules} also reach {names - mine}"
        moved = {name for name, p in model.named_parameters()
                 if p.grad is not None and p.grad.abs().max() > 0}
        reached.setdefault(modules, set()).update(moved)

    for optimiser in trainer.optimisers:
        modules = next(p.modules for p, adam in trainer.phases.values() if adam is optimiser)
        tiny.before_steps(optimiser, lambda m=modules: look(m))
    batches = Batches(data, 16)
    for k in range(5):  # some weights start at zero and hold back the gradient of others
        trainer.step(batches.at(k))
    for modules, names in reached.items():
        assert names == {n for n, _ in model.named_parameters() if n.split(".")[0] in modules}
    assert set().union(*reached.values()) == {n for n, _ in model.named_parameters()}


@every_case
def test_a_loaded_model_equals_the_one_in_memory(case, trained):
    model, run = trained(case)
    mine = outputs(model, case.data())
    loaded = Run(run, **tiny.modules_of(case.modules)).model
    theirs = outputs(loaded, case.data())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("case", [c for c in CASES if c.modules is not dict], ids=str,
                         scope="module")
def test_loading_asks_for_the_users_own_modules(case, trained):
    _, run = trained(case)
    with pytest.raises(RunError, match=r"encoder=…"):
        _ = Run(run).model


@every_case
def test_the_seed_decides_everything(case, trained, tmp_path):
    first = tiny.weights(trained(case)[0])
    torch.randn(3)  # what the process drew before must not matter
    again = tiny.weights(case.train(tmp_path / "b"))
    assert torch.equal(first, again)
    if case.name != "pca":
        other = case.train(tmp_path / "c", training=tiny.options(seed=1))
        assert not torch.equal(first, tiny.weights(other))


def test_a_run_that_is_stopped_from_outside_is_not_compared(tmp_path, monkeypatch):
    """It would look as if the seed did not decide everything."""
    at = tiny.At(96, lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(Progress, "advance", lambda self, images, share: at.advance(images))
    with pytest.raises(KeyboardInterrupt, match="from outside"):
        tiny.train(tmp_path / "run", "ae", tiny.images(), tiny.small("ae"))
    assert at.done


@trained_case
def test_an_interrupted_run_ends_with_the_same_bits(case, tmp_path):
    """With a long average, and stopped between two updates of it."""
    options = {"validation": case.data(), "training": tiny.options(ema=0.5)}
    whole = tiny.weights(case.train(tmp_path / "whole", **options))
    stop = tiny.At(176, lambda: signal.raise_signal(signal.SIGINT))
    case.train(tmp_path / "run", progress=stop, **options)
    assert stop.done and not (tmp_path / "run/model.safetensors").exists()
    assert torch.equal(whole, tiny.weights(case.train(tmp_path / "run", **options)))


@trained_case
def test_two_processes_equal_one(case):
    if case.coupled:
        pytest.skip(f"{case.coupled} couple the examples of a batch")
    data = case.data()
    alone, *both = (case.build(data) for _ in range(3))
    advance(alone, data, DistributedContext())
    pair = Pair()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: advance(both[rank], data, Rank(rank, 2, pair)), (0, 1)))
    assert torch.equal(tiny.weights(both[0]), tiny.weights(both[1]))
    torch.testing.assert_close(tiny.weights(both[0]), tiny.weights(alone), atol=1e-5, rtol=0)


def advance(model: core.Model, data: Data, world: DistributedContext) -> None:
    """Eight steps of one process's share.

    Adam divides a gradient by its size, so rounding errors of one that is nearly zero would move a
    weight by up to the learning rate; ε keeps them small, and other errors are still 80 times the
    tolerance in eight steps.
    """
    options = tiny.options(ema=0.0, learning_rate=1e-4, warmup=0.0, adam_eps=1e-6)
    trainer = Trainer(model, options, budget=320, precision="fp32", distributed=world)
    batches = Batches(data, 16, rank=world.rank, world=world.size)
    for k in range(8):
        trainer.step(batches.at(k))


class Pair:
    """Where two ranks, threads here, meet as processes do in an all-reduce."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)
        self.by_rank: list[list[Tensor]] = [[], []]

    def average(self, rank: int, gradients: list[Tensor]) -> None:
        self.by_rank[rank] = [g.clone() for g in gradients]
        self.barrier.wait()
        for mine, one, two in zip(gradients, *self.by_rank, strict=True):
            mine.copy_((one + two) / 2)
        self.barrier.wait()


@dataclass(frozen=True)
class Rank(DistributedContext):
    """A rank of a :class:`Pair`."""

    pair: Any = None

    def average(self, gradients: Any) -> None:
        self.pair.average(self.rank, gradients)
