"""``train``, ``fit-prior``, ``demo``, ``models``: whose settings depend on the model, which no
signature can say; those settings, by file, ``--set`` and flag, and their help."""

import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from latlas import cli
from latlas.cli.derive import pairs
from latlas.core.errors import ConfigError
from latlas.core.options import FieldInfo, check_names, convert, fields_of
from latlas.engine.options import BUDGETS, TrainOptions
from latlas.models import MODELS, get
from latlas.render.text import table
from latlas.run import Run
from latlas.verbs.common import AMOUNT, SEED, Bounds, DataLike, Flag, Result, RunLike, verb

Set = Annotated[tuple[str, ...], Flag(
    tuple[str, ...], "key=value, any setting of the model or of training; may be repeated.",
    repeated=True)]
Config = Annotated[Path | None, Flag(Path, "TOML file of settings; --set and flags win over it.")]
Images = Annotated[str | None, Flag(str, "Budget: examples to see (200_000, 2M).")]
Epochs = Annotated[float | None, Flag(float, "Budget: passes over the data.")]
Minutes = Annotated[float | None, Flag(float, "Budget: minutes.")]
TrainSeed = Annotated[int | None, Flag(int, "Decides weights, order and draws."), SEED]
TrainDevice = Annotated[str | None, Flag(str, "auto, cpu, cuda, mps.")]
AcceptChangedData = Annotated[bool, Flag(
    bool, "Go on although the examples have changed since it began.")]
DRAWS = 1000
#: enough for 1,437 small digits: the held-out loss is lowest after 60,000 to 100,000 examples
DEMO_IMAGES = 100_000
#: examples of models that learn from two domains
TWO_DOMAINS = {
    "pix2pix": ("latlas train pix2pix --data maps/ --image-size 64 --minutes 30 --out runs/maps",
                "latlas translate runs/maps --data new/ --out scenes/"),
    "cycle-gan": ("latlas train cycle-gan --data horses/ --data zebras/ --image-size 64 "
                  "--out runs/horses",
                  "latlas translate runs/horses --data mine/ --to B --out striped/")}


@dataclass(eq=False, repr=False)
class Message(Result):
    """Facts and the text for them."""

    values: dict[str, Any]
    words: str = ""
    exit_code: int = 0

    def facts(self) -> dict[str, Any]:
        return self.values

    def text(self) -> str:
        return self.words


def models() -> Result:
    """List the models and what each can do."""
    entries = {k: {"summary": v.summary, "provides": sorted(v.provides)}
               for k, v in MODELS.items()}
    return Message(entries, table(("model", "", "can"), [
        (k, v["summary"], ", ".join(v["provides"])) for k, v in entries.items()]))


@verb
def train(model: Annotated[str, Flag(str, "A name of `latlas models`, or module:Class.",
                                            positional=True)] = "vae",
          data: DataLike = None, *,
          split: Annotated[Literal["train", "all"], Flag(
              Literal["train", "all"], "Part to train on; all holds nothing back.")] = "train",
          out: Annotated[Path | None, Flag(Path, "Run folder. Default: runs/MODEL-DATA.")] = None,
          set: Set = (), config: Config = None, images: Images = None, epochs: Epochs = None,
          minutes: Minutes = None,
          init_from: Annotated[Path | None, Flag(Path, "Run folder whose weights to start from.",
                                                 name="--from")] = None,
          further: Annotated[Path | None, Flag(
              Path, "Finished run to train on, with --data or its own, into a new folder.",
              name="--continue")] = None,
          seed: TrainSeed = None, device: TrainDevice = None,
          accept_changed_data: AcceptChangedData = False, **read: Any) -> Result:
    """Train a model on your data.

    The same command again goes on where it stopped; Ctrl-C saves first. Without a budget one is
    chosen from the data.
    """
    from latlas.data import open_source
    from latlas.learning import continue_training, learn, with_image_size
    from latlas.training import began, plan_of, training_data

    before = None if further is None else Run(further)
    if before is not None:
        if model not in ("vae", before.model_name):  # the default, or the run's own
            raise ConfigError(f"--continue {further}: a run of {before.model_name}, not of {model}")
        model = before.model_name
    values = settings(model, config, pairs(set, "--set"), {
        "images": images, "epochs": epochs, "minutes": minutes, "seed": seed, "device": device})
    if before is not None:
        return _ending(continue_training(before, data, out=out, read=read, origin="train",
                                         started=cli.launched, **values))
    plan = plan_of(model, values, split=split, init_from=init_from, origin="train")
    sources = data if isinstance(data, tuple) else (data or "digits",)
    out = out or default_run(model, sources)
    read = with_image_size(plan, sources, out, read)
    source = open_source(sources if len(sources) > 1 else sources[0], **read)
    examples = training_data(source, split, began(out) if accept_changed_data else None)
    return _ending(learn(replace(plan, started=cli.launched), examples, out,
                         accept_changed_data=accept_changed_data))


def _ending(run: Run) -> Result:
    """How a training ended, and what can be done next."""
    outcome, out = run.outcome, run.path
    assert outcome is not None
    facts = {"run": str(out), "model": run.model_name, "stopped": outcome.stopped,
             "images": outcome.images, "seconds": outcome.seconds, "best": outcome.best}
    if os.environ.get("RANK", "0") != "0":  # one of the processes of torchrun speaks for all
        return Message({})
    if outcome.stopped == "interrupt":
        return Message(facts, f"{out}: stopped and saved; the same command goes on", exit_code=130)
    state = "is finished already" if outcome.stopped == "already finished" else "is trained"
    verbs = ("sample" if run.model.needs is None else "translate", "evaluate", "report")
    return Message(facts, "\n".join([f"{out} {state}. Next:",
                                  *(f"  latlas {verb} {out}" for verb in verbs)]))


@verb
def fit_prior(run: RunLike, *, data: DataLike = None,
              draws: Annotated[int, Flag(int, "Draws of q(z|x) for every training example."),
                               Bounds(1, 1_000_000)] = 4,
              set: Set = (), config: Config = None,
              images: Annotated[str | None, Flag(
                  str, "Budget: latents to see. Default: 4M.")] = None,
              epochs: Epochs = None, minutes: Minutes = None, seed: TrainSeed = None,
              device: TrainDevice = None, accept_changed_data: AcceptChangedData = False,
              **read: Any) -> Result:
    """Fit a second prior to the latents of a run's training examples, by flow matching.

    It goes into RUN/prior, and `latlas sample RUN` then draws from it. The same command again
    goes on where it stopped. `latlas train flow-matching --help` lists the settings.
    """
    from latlas.prior_fitting import fit_prior as fit

    values = settings("flow-matching", config, pairs(set, "--set"), {
        "images": images, "epochs": epochs, "minutes": minutes, "seed": seed, "device": device})
    prior = fit(run, data, draws=draws, origin="fit-prior", read=read,
                accept_changed_data=accept_changed_data, **values)
    outcome: Any = prior.run.outcome
    stopped = outcome.stopped == "interrupt"
    facts = {"run": str(prior.run.path), "stopped": outcome.stopped, "images": outcome.images,
             "seconds": outcome.seconds, "own": prior.own, "fitted": prior.fitted}
    text = (f"{prior.run.path}: stopped and saved; the same command goes on" if stopped else
            f"{prior.run.path} is fitted. Log-density of held-out latents, mean: {prior.own:.2f} "
            f"nats under the model's own prior,\n{prior.fitted:.2f} under the fitted one. Next:\n"
            f"  latlas sample {run.path}\n  latlas evaluate {run.path}")
    return Message(facts, text, exit_code=130 if stopped else 0)


@verb
def demo(*, out: Annotated[Path, Flag(Path, "Folder of the runs and the report.")] = Path(
             "runs/demo"),
         data: Annotated[str, Flag(str, "Source to show it on.")] = "digits",
         minutes: Annotated[float | None, Flag(
             float, "Training time of each model. Default: each model's own budget."),
             AMOUNT] = None,
         models: Annotated[tuple[str, ...], Flag(tuple[str, ...], "Models to compare.",
                                                 several=True)] = ("pca", "ae", "vae"),
         seed: Annotated[int, Flag(int, "Decides every random draw."), SEED] = 0) -> Result:
    """Train pca, ae and vae on handwriting, compare them, and write one HTML report.

    Called again it goes on where it stopped; finished runs are not trained again.
    """
    from latlas.data import open_source
    from latlas.learning import learn
    from latlas.training import plan_of, training_data
    from latlas.verbs.report import write_report

    if not models:
        raise ConfigError("--models: name at least one; `latlas models` lists them")
    budget: dict[str, Any] = {"minutes": minutes} if minutes else (
        {"images": DEMO_IMAGES} if data == "digits" else {})
    plans = [plan_of(model, {**budget, "seed": seed}, origin="demo") for model in models]
    examples = training_data(open_source(data))
    for plan in plans:
        print(f"{plan.model}:", file=sys.stderr)
        outcome: Any = learn(plan, examples, out / plan.model).outcome
        if outcome.stopped == "interrupt":
            return Message({}, exit_code=130)
    print("comparing on held-out data …", file=sys.stderr)
    page = out / "report.html"
    comparison = write_report([out / model for model in models], page, draws=DRAWS, seed=seed,
                              command="latlas demo", title="latlas demo").comparison
    return Message({"report": str(page), **comparison.facts()}, "\n".join(
        [comparison.text(), "", f"wrote {page}: open it in a browser. "
         "Next:", f"  latlas sample {out / models[-1]}", "  latlas train vae --data YOUR_DATA"]))


def default_run(model: str, sources: tuple[Any, ...]) -> Path:
    """``runs/vae-mnist`` of vae on ``../shared/mnist.npz``: letters, digits, dots and dashes alone.

    ``a.zip::b.npz`` is b, and ``photos/`` is photos.
    """
    names = [Path(source.rpartition("::")[2]).expanduser().resolve().name for source in sources]
    data = "-".join(name.partition(".")[0] or name for name in names)
    return Path("runs") / "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "data"
                                   for text in (model, data))


def settings(model: str, file: Path | None, texts: Mapping[str, str],
             flags: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that was given, checked where it was written; later ones win.

    A budget in a later layer replaces those of earlier ones. Flags that are ``None`` were not
    given. The tables ``[model]`` and ``[training]`` of a TOML file are only headings.
    """
    content: dict[str, Any] = {}
    if file is not None:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--config {file}: {error}") from error
        for heading in [content.pop(name, {}) for name in ("model", "training")]:
            if not isinstance(heading, dict):
                raise ConfigError(f"--config {file}: `model` and `training` are headings: [model]")
            content |= heading
    result: dict[str, Any] = {}
    fields = _fields(model)
    flags = {k: v for k, v in flags.items() if v is not None}
    for where, values in ((str(file), content), ("--set", texts), ("option", flags)):
        check_names(values, fields, f"{where}, model {model}")
        layer = {k: convert(fields[k], v, where) for k, v in values.items()}
        if any(layer.get(name) is not None for name in BUDGETS):
            result = {k: v for k, v in result.items() if k not in BUDGETS}
        result |= layer
    return result


def _fields(model: str) -> dict[str, FieldInfo]:
    """Settings by name; the model's own come first where a name is in both."""
    return {info.name: info for cls in (TrainOptions, get(model).config) for info in fields_of(cls)}


def setting_meant(model: str, option: str) -> str:
    """How to give a setting of a model that was typed as an option of ``train``; else empty."""
    key = option.split("=")[0].lstrip("-").replace("-", "_")
    if model not in MODELS or key not in _fields(model):
        return ""
    return f" {key} is a setting: --set {key}=…"


def train_help(model: str | None) -> tuple[Sequence[str], list[str]]:
    """Command lines of ``train``, none without a model; and lines on the settings for ``--set``:
    the model's, then those of training."""
    entry = get(model) if model else None
    training = ("training (--set key=value):", TrainOptions, entry.training if entry else {})
    if entry is None:
        examples: Sequence[str] = ()
        lines = ["", f"Models: {', '.join(MODELS)}. `latlas train MODEL --help` lists a model's "
                     "settings."]
        parts = [training]
    else:
        examples = TWO_DOMAINS.get(str(model), (
            f"latlas train {model} --data digits",
            f"latlas train {model} --data photos/ --image-size 64 --out runs/photos"))
        lines = []
        parts = [(f"{model} (--set key=value): {entry.summary}", entry.config, {}), training]
    for title, cls, defaults in parts:
        lines += ["", f"Settings of {title}"]
        infos = fields_of(cls)
        values = []
        for info in infos:  # as typed: 64,64 and none and true
            value = defaults.get(info.name, info.default)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            values.append(f"{info.name}=" + (
                text.lower() if value is None or isinstance(value, bool) else text))
        width = min(max(map(len, values), default=0), 34)
        lines += [f"  {value:<{width}}  " + (f"{i.help} ({i.allowed})" if i.help else i.allowed)
                  for value, i in zip(values, infos, strict=True)]
    return examples, lines
