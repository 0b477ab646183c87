"""A run: a folder with a trained model, the space of its data, and how it was trained.

    run.json                what was asked for; written before the first step
    examples.npz            hashes of the examples that it is trained on
    metrics.jsonl           one JSON object a line
    checkpoint.safetensors  everything training needs to go on; removed when it has ended
    rollback-K.safetensors  the same as of step K, of a monitored model; removed likewise
    model.safetensors       the trained model
    prior/                  a run of its own: the prior fitted to the latents

Reading run.json imports no torch; weights are read when :attr:`Run.model` is first asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from latlas import models
from latlas.core.errors import CapabilityError, DataError, RunError, say_option
from latlas.core.files import CHECKPOINT, MODEL, load_tree
from latlas.core.options import parse
from latlas.core.record import RUN, read_run
from latlas.core.space import parse_space
from latlas.core.trees import Ending
from latlas.data.fitting import open_examples
from latlas.data.keys import trained_on

if TYPE_CHECKING:
    from torch import nn

    from latlas.core.model import Model
    from latlas.data.dataset import Dataset
    from latlas.engine.train import Outcome

#: folder of a run that holds the prior fitted to its latents
PRIOR = "prior"
#: what a model lacks that cannot do something
NEEDS = {"sample": "a prior to draw from", "encode": "an encoder", "decode": "a decoder",
         "reconstruct": "an encoder and a decoder", "score": "a likelihood",
         "classify": "an output for classes", "denoise": "training on noisy examples",
         "mix": "layers that have styles", "translate": "two domains"}


class Run:
    """A run folder, or a model in memory (:meth:`Run.of`).

    Args:
        path: the folder.
        device: where the model's weights go: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        model: the ``module:Class`` of a run of a model of one's own. Its code is imported only if
            it is named here, or was by :func:`latlas.train` in this process.
        record: what run.json holds, where it was read already.
        modules: networks of the person's own that it was trained with (``encoder=…``).

    Attributes:
        path: the folder, ``None`` for a model in memory.
        name: of the folder, or of the model's class.
        model_name: name in MODELS; ``config`` its config; ``space`` what an example is.
        provides: what the model can do (``sample``, ``encode``, …).
        data: how the training data were named and read; ``None`` for arrays in memory.
        record: the whole of run.json; ``chosen`` the resolved options in it.
        outcome: how training ended, where this call trained it.

    Raises:
        RunError: no run there, or one this version cannot read.
    """

    outcome: Outcome | None = None

    def __init__(self, path: str | Path, *, device: str = "auto", model: str | None = None,
                 record: dict[str, Any] | None = None, **modules: nn.Module) -> None:
        self.path: Path | None = Path(path)
        self.device, self.modules = device, modules
        self.record = record = read_run(self.path) if record is None else record
        try:
            self.name, self.model_name = self.path.resolve().name, record["model"]
            if model is not None and model != self.model_name:
                raise RunError(f"{path} holds a run of {self.model_name}, not of {model}")
            if model is None:
                models.require_named(self.model_name, self.path / RUN)
            self.provides = models.get(self.model_name).provides
            self.space: Any = parse_space(record["space"])
            self.data: Mapping[str, Any] | None = record.get("data")
            self.chosen: Mapping[str, Any] = record.get("chosen") or {}
            record["config"], record["training"], record["id"]
        except KeyError as error:
            raise RunError(f"{path}/run.json lacks {error}; it is no whole run") from error
        except (TypeError, ValueError) as error:
            raise RunError(f"{path}/run.json is no whole run: {error}") from error

    @classmethod
    def of(cls, model: Model, *, data: Mapping[str, Any] | None = None,
           path: Path | None = None, outcome: Outcome | None = None) -> Run:
        """A model in memory as a run; ``data`` as in :class:`Run`."""
        run = cls.__new__(cls)
        run.path, run.outcome, run.device, run.modules = path, outcome, str(model.device), {}
        run.model_name = type(model).__name__.lower()
        run.name = run.model_name if path is None else path.resolve().name
        run.space, run.data, run.record, run.chosen = model.space, data, {}, {}
        run.provides = provides_of(model)
        run.__dict__ |= {"model": model, "config": model.config}
        return run

    @property
    def finished(self) -> bool:
        """The last step was made and the model saved."""
        return self.path is None or (self.path / MODEL).is_file()

    @cached_property
    def ending(self) -> Ending | None:
        """How training ended; ``None`` of a run that has not, or that no engine trained."""
        if self.outcome is not None and self.outcome.ending is not None:
            return self.outcome.ending
        if self.path is None or not self.finished:
            return None
        facts = load_tree(self.path / MODEL, prefix="no tensor has this name")[1]
        try:
            return msgspec.convert(facts, Ending)
        except msgspec.ValidationError:  # whoever reads the weights says so
            return None

    def warnings(self) -> list[str]:
        """One line where the run was trained too little to be judged by what it makes."""
        reasons = self.ending.warnings() if self.ending else []
        if not reasons:
            return []
        return [f"{self.name} may be under-trained: {'; '.join(reasons)}. "
                f"`latlas train --continue {self.path or 'RUN'} --minutes M` goes on from it"]

    @cached_property
    def config(self) -> Any:
        """The model's config; this imports the model's module."""
        return parse(models.get(self.model_name).config, self.record["config"],
                     f"{self.path}/run.json")

    @cached_property
    def model(self) -> Model:
        """The model, ready to use: evaluation mode, no gradients, on its device.

        An unfinished run gives its best weights so far. A prior that was fitted to the latents is
        the model's ``fitted_prior``.

        Raises:
            RunError: no weights yet, or weights that do not fit run.json.
        """
        from latlas.core.devices import apply_layout, pick_device

        assert self.path is not None
        missing = [name for name in self.record.get("custom", ()) if name not in self.modules]
        if missing:
            raise RunError(f"{self.path} was trained with modules of its own; pass "
                           + ", ".join(f"{name}=…" for name in missing) + " to load it")
        model = models.build(self.model_name, self.config, self.space, **self.modules)
        self._load_weights(model)
        apply_layout(model, self.chosen.get("layout", ""))  # the same kernels, the same bits
        if self.finished and (self.path / PRIOR / MODEL).is_file():
            model.fitted_prior = self._fitted_prior()
        return model.to(pick_device(self.device)).eval().requires_grad_(False)

    def _load_weights(self, model: Model) -> None:
        """Of the end of training, else the best ones so far."""
        from latlas.core.trees import Progress, check_tensors, read_tree

        assert self.path is not None
        file, kind = self.path / MODEL, Ending
        if not self.finished:
            file, kind = self.path / CHECKPOINT, Progress  # type: ignore[assignment]
        if not file.is_file():
            raise RunError(f"{self.path} has no checkpoint yet; let the training run go on")
        weights = read_tree(file, self.record["id"], kind)[0]
        if not self.finished:
            prefix = "best." if any(k.startswith("best.") for k in weights) else "ema."
            weights = {k.removeprefix(prefix): v for k, v in weights.items()
                       if k.startswith(prefix)}
        check_tensors(file, weights, model.state_dict(),
                      "the modules passed" if self.modules else "its run.json")
        model.load_state_dict(weights)

    def _fitted_prior(self) -> Any:
        """The prior in this folder; RunError if it was fitted to other weights than these."""
        from latlas.models.flow_matching import FittedPrior, FlowMatching

        assert self.path is not None
        folder = self.path / PRIOR
        record = read_run(folder)
        hint = f"remove {folder}, and fit another"
        if record.get("model") != "flow-matching":
            raise RunError(f"{folder} holds no fitted prior but a run of {record.get('model')}",
                           what=str(folder), hint=hint)
        if (record.get("made_of") or {}).get("weights") != weights_file_digest(self.path):
            raise RunError(f"{folder} was fitted to other weights than those of {self.path}",
                           what=str(folder), hint=hint)
        flow = Run(folder, device="cpu").model
        assert isinstance(flow, FlowMatching)
        return FittedPrior(flow)

    def trained_on(self, data: Any) -> int | None:
        """How many of these examples it was trained on, by their contents; ``None`` where that is
        not known."""
        return trained_on(self.path, data)

    def open(self, data: Any = None, split: str | None = None, *, side: str = "A",
             **options: Any) -> Dataset:
        """Examples in the run's own units, columns and classes.

        Args:
            data: a source's name, a file or folder, an array (n, *shape), a pair (array, labels),
                two sources for two domains, a Dataset or Source; ``None`` for what the run was
                trained on.
            split: ``train``, ``validation``, ``test`` or ``all``. By default ``test`` where the
                source has a test part or is the run's own, else ``all``.
            side: ``B`` for the examples of the other domain.
            options: of the source (``image_size=64, label="class"``).

        Raises:
            DataError: no such data, or it does not fit the run's.
        """
        return open_examples(self, data, split, side=side, **options)

    def training_examples(self, data: Any = None, **options: Any) -> Dataset:
        """What the model was trained on; the train part of ``data`` where that cannot be opened."""
        try:
            if self.data is not None:
                return self.open(None, "train")
        except DataError:
            if data is None:
                raise
        return self.open(data, "train", **options)

    def can(self, capability: str) -> bool:
        """Whether the model can do this."""
        return capability in self.provides

    @property
    def conditional(self) -> bool:
        """The model is one of p(x | condition)."""
        model = self.__dict__.get("model") or models.load_class(models.get(self.model_name))
        return model.takes_condition is not None

    def require(self, capability: str, verb: str = "") -> None:
        """Say in one line, before any data or weights are read, that a model cannot do this.

        Args:
            capability: the word among ``provides``; ``verb`` what was asked for, if it differs.
        """
        if self.can(capability):
            return
        able = sorted(k for k, entry in models.MODELS.items() if capability in entry.provides)
        verb = verb or capability
        hint = f". {observation_hint()}" if verb == "score" and self.can("decode") else ""
        raise CapabilityError(
            f"{self.model_name} cannot {capability}; `{verb}` needs {NEEDS[capability]}. "
            f"Models that can: {', '.join(able) or 'none'}{hint}")

    def __repr__(self) -> str:
        state = "" if self.finished else ", not finished"
        return (f"Run({self.model_name}, {self.path or 'in memory'}{state}: "
                f"{', '.join(sorted(self.provides))})")


def observation_hint() -> str:
    """How a decoder without a likelihood is scored all the same."""
    return (f"A decoder with a prior is given one by {say_option('observation_sd', 'S')}: "
            "N(x; decode(z), S²), S in model units")


def as_run(run: Run | Model | str | Path) -> Run:
    """Whatever names a run: itself, a folder, or a model."""
    if isinstance(run, Run):
        return run
    return Run(run) if isinstance(run, (str, Path)) else Run.of(run)


def provides_of(model: Model) -> frozenset[str]:
    """What a model in memory can do; any encoder and decoder can be tried on noisy examples."""
    from latlas.core.model import CAPABILITIES

    words = {word for word, protocols in CAPABILITIES.items()
             if all(isinstance(model, protocol) for protocol in protocols)}
    return frozenset(words | {"denoise"} if "reconstruct" in words else words)


def weights_file_digest(path: Path) -> str:
    """Of a finished run: what a prior fitted to its latents belongs to."""
    return hashlib.blake2b((path / MODEL).read_bytes(), digest_size=8).hexdigest()


def load(run: str | Path, *, device: str = "auto", model: str | None = None,
         **modules: Any) -> Run:
    """The run of a folder, on a GPU where there is one; arguments as those of :class:`Run`."""
    return Run(run, device=device, model=model, **modules)


def open_data(data: Any = None, split: str | None = None, *, like: Any = None,
              **options: Any) -> Dataset:
    """Examples of a source, in the units and columns of the run ``like`` if one is given.

    Arguments and errors are those of :meth:`Run.open`.
    """
    return open_examples(None if like is None else as_run(like), data, split, **options)
