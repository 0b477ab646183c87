"""``project``: the latent vector of a given example, by latent optimisation (GAN inversion): any
decoder, no encoder needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from latlas.core.errors import ConfigError, say_option
from latlas.render import imaging
from latlas.render.text import counted
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, DataLike, Flag, Out, Output, Progress, RunLike, Seed, Split
from latlas.verbs.results import Results, results_of

if TYPE_CHECKING:
    from torch import Tensor

    from latlas.core.model import Batch
    from latlas.core.space import Space
    from latlas.data.dataset import Dataset

    Decode = Callable[[Tensor], Tensor]

#: images on the way that are kept, and latents that are followed at once
FRAMES, ROWS = 8, 64
#: examples of a source that are projected, where nobody says how many
FEW = 8
#: step size at the start, in standard deviations of the latents, and draws it is measured on
RATE, DRAWS = 0.1, 512


@dataclass(eq=False, repr=False)
class Projection(common.Result):
    """Latents of given examples.

    Attributes:
        latent_space: ``z`` or ``w``, that of the latents.
        latents: (n, d), the best of all starts.
        originals, values: (n, \\*shape) in data units, as given and as decoded from the latents.
        path: (n, 8, \\*shape) what was decoded on the way, from the start that ended best.
        error: (n,) mean squared difference per scalar, model units.
        nearest: (n,) the same of the nearest training example; ``None`` where those are not known.
        space: what an example is; ``names`` (n,) of the examples' files, if any.
    """

    suffixes: ClassVar[tuple[str, ...]] = write.EXAMPLES
    latent_space: str
    latents: Array
    originals: Array
    values: Array
    path: Array
    error: Array
    nearest: Array | None
    space: Space
    names: Any = None

    def as_columns(self) -> dict[str, Any]:
        near = {} if self.nearest is None else {"nearest": self.nearest}
        return {"example": np.arange(len(self.latents)), "error": self.error, **near}

    def facts(self) -> dict[str, Any]:
        return {"space": self.latent_space, **self.as_columns()}

    def text(self) -> str:
        near = self.nearest
        beside = "" if near is None else (
            f"; of the nearest training examples {near.mean():.5f} (the projection is nearer in "
            f"{int((self.error < near).sum())} of {len(near)})")
        return (f"squared error of {counted(len(self.error), 'example')}, model units: "
                f"{self.error.mean():.5f}{beside}")

    def save(self, path: str | Path) -> str:
        """A row for each example: the original, the way, and the end; as ``.gif`` an animation of
        that. Other suffixes hold the decoded examples, as :class:`latlas.verbs.common.Examples`
        does."""
        suffix, shape = Path(path).suffix.lower(), self.space.shape
        if suffix not in (".png", ".gif") or self.space.kind != "image":
            return write.write_examples(path, self.values, self.space, self.names)
        strip = np.concatenate([self.originals[:, None], self.path, self.values[:, None]], 1)
        if suffix == ".png":
            return write.write_examples(path, strip.reshape(-1, *shape), self.space,
                                        columns=strip.shape[1])
        grids = [imaging.grid(strip[:, [0, i]].reshape(-1, *shape), self.space.levels,
                               columns=2)[..., :3] for i in range(1, strip.shape[1])]
        write.write_bytes(Path(path), imaging.gif(np.moveaxis(np.stack(grids), -1, 1),
                                                   seconds=0.4, bounce=False))
        return f"wrote {len(self.values)} projections to {path}"

    def save_in(self, results: Results) -> str:
        return common.Examples(self.values, self.space, self.names).save_in(results)


@common.verb
def project(run: RunLike, data: DataLike = None, *, split: Split = None,
            n: Annotated[int | None, Flag(int, "Only the first N examples. Default: 8 of a source, "
                                               "all of an array."), common.POSITIVE] = None,
            starts: Annotated[int, Flag(int, "Latents that each optimisation begins from."),
                              common.Bounds(1, 1_000)] = 8,
            steps: Annotated[int, Flag(int, "Steps of each."), common.Bounds(1, 100_000)] = 200,
            space: Literal["auto", "z", "w"] = "auto",
            features: Annotated[Any, Flag(str, "Compare these features too: random-conv, "
                                               "classifier, or a TorchScript file.")] = None,
            train: Annotated[Any, Flag(None, "")] = None, seed: Seed = 0,
            out: Annotated[Out, Output("projection")] = None, progress: Progress | None = None,
            **read: Any) -> Projection:
    """Find the latent vector of given examples by optimisation: the example, the way there,
    and what was reached.

    Adam on the latent vector, of each example from several starts: the encoder's where there is
    one, the mean style where latents are styles, in half of them what the model guesses where it
    can, and draws of the prior. The loss is the mean squared difference per scalar, in model
    units; with features f plus ‖f(x) − f(y)‖² / ‖f(x)‖². Of all latents met the one of least loss
    is kept. The error of every example stands beside that of the nearest training example.

    Args:
        space: z, or w (one style for all layers); auto: w where there are styles.

    Raises:
        CapabilityError: no decoder, or no styles; ConfigError: a wrong setting.
    """
    from latlas.data.dataset import Dataset
    from latlas.data.fitting import is_arrays
    from latlas.data.frames import is_frame
    from latlas.verbs.passes import examples_of, in_order

    run = as_run(run)
    run.require("decode", "project")
    if space == "w":
        run.require("mix", f"project {say_option('space', 'w')}")
    write.check_examples(out, run.space)
    in_memory = isinstance(data, Dataset) or is_arrays(data) or is_frame(data)
    examples = run.open(data, split, **read).subset(slice(0, n or (None if in_memory else FEW)))
    results = results_of(out, "project", run, examples, data, starts=starts, steps=steps,
                         space=space, features=features, seed=seed)
    neighbours = None  # training examples, where they are known
    if train is not None:
        neighbours = run.open(train)
    elif not in_memory or run.data is not None:
        neighbours = run.training_examples(data, **read)
    search = _Search(run.model, space, features,
                     examples if neighbours is None else neighbours, seed)
    parts: list[tuple[Array, ...]] = []
    for batch in in_order(run.model, examples, max(1, ROWS // starts)):
        parts.append(search(batch, starts, steps))
        if progress:
            progress(sum(len(part[0]) for part in parts), len(examples))
    latents, values, frames, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    nearest = None if neighbours is None else _nearest_error(run.space, examples, neighbours)
    return Projection(search.space, latents, examples_of(examples), values, frames, error, nearest,
                      run.space, examples.take("names")).saved(out, results)


class _Search:
    """A latent space: where starts are drawn, how a latent vector is decoded and compared."""

    def __init__(self, model: Any, space: str, features: Any, examples: Dataset,
                 seed: int) -> None:
        from latlas.core.model import HasStyles
        from latlas.verbs.passes import inference

        self.model, self.seed, self.features = model, seed, None
        styled = isinstance(model, HasStyles)
        self.space = ("w" if styled else "z") if space == "auto" else space
        self.decode = model.decode_w if self.space == "w" else model.decode
        if features is not None:
            from latlas.metrics.features import Network
            from latlas.verbs.sample_quality import feature_extractor

            extractor = feature_extractor(features, examples, seed, str(model.device))
            if not isinstance(extractor, Network):
                raise ConfigError(f"{say_option('features', features)} is no network that a "
                                  "gradient passes through; choose random-conv, classifier or a "
                                  "module", option="features")
            self.features = extractor.module.to(model.device).eval()
        with inference(model, gradients=True):
            self.unit = float(self.draw(DRAWS, {}, seed, "project").std())

    def draw(self, n: int, condition: dict[str, Tensor], *words: int | str) -> Tensor:
        """(n, d), of the prior or the standard normal."""
        from latlas.verbs.passes import noise, sample_prior_latents

        z = sample_prior_latents(self.model, n, noise(self.model, *words), condition)
        if z is None:
            z = noise(self.model, *words).normal(n, self.model.latent_dim)
        return self.model.to_w(z) if self.space == "w" else z

    def __call__(self, batch: Batch, starts: int, steps: int) -> tuple[Array, ...]:
        """Latents, decoded examples, the way there and errors of one batch."""
        import torch

        from latlas.core.model import Encodes, HasInitialLatents
        from latlas.verbs.passes import batch_condition, inference, noise, to_data

        n, model = len(batch), self.model
        with inference(model, gradients=True):
            condition = batch_condition(model, batch)
            z = torch.stack([self.draw(n, condition, self.seed, "start", k)
                             for k in range(starts)])
            if self.space == "w":
                z[0] = model.mean_w()
            elif isinstance(model, Encodes):
                z[0] = model.encode(batch.x, **condition).mean
            elif isinstance(self.model, HasInitialLatents):
                for k in range((starts + 1) // 2):
                    source = noise(model, self.seed, "guess", k)
                    guess = self.model.initial_latents(batch.x, noise=source, **condition)
                    z[k] = z[k] if guess is None else guess
            own = {} if self.space == "w" else condition  # styles are decoded without
            repeated = {k: v.repeat(starts, *[1] * (v.dim() - 1)) for k, v in own.items()}
            target = batch.x.repeat(starts, *[1] * (batch.x.dim() - 1))
            goal = None if self.features is None else self.features(target).float().flatten(1)

            def loss_of(x: Tensor) -> Tensor:
                loss = (x - target).square().flatten(1).mean(1)
                if goal is None or self.features is None:
                    return loss
                difference = self.features(x).float().flatten(1) - goal
                size = goal.square().sum(1).clamp(min=1e-9)
                return loss + difference.square().sum(1) / size

            latents, loss, frames = _descend(lambda z: self.decode(z, **repeated).mean.float(),
                                             z.flatten(0, 1), self.unit, loss_of, steps)
            best = loss.view(starts, n).argmin(0) * n + torch.arange(n, device=loss.device)
            latent = latents[best]
            x = self.decode(latent, **own).mean.float()
            error = (x - batch.x).square().flatten(1).mean(1)
        return (np.asarray(latent.cpu()), to_data(model.space, x),
                np.stack([to_data(model.space, frame[best]) for frame in frames], 1),
                np.asarray(error.double().cpu()))


def _descend(decode: Decode, begin: Tensor, unit: float, loss_of: Decode,
             steps: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The best latent vector of every row, its loss, and what was decoded at equal distances of
    steps. Adam works number by number, so no row depends on another."""
    import torch

    latent = begin.clone().requires_grad_()
    optimiser = torch.optim.Adam([latent])
    best, least = begin.clone(), torch.full((len(begin),), torch.inf, device=begin.device)
    snapshots, frames = set(np.linspace(0, steps, FRAMES).astype(int).tolist()), []
    for step in range(steps + 1):
        optimiser.param_groups[0]["lr"] = RATE * unit * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            x = decode(latent)
            loss = loss_of(x)
            latent.grad, = torch.autograd.grad(loss.sum(), latent)
        better = loss.detach() < least
        best[better], least[better] = latent.detach()[better], loss.detach()[better]
        frames += [x.detach()] if step in snapshots else []
        optimiser.step()
    return best, least, frames + [frames[-1]] * (FRAMES - len(frames))


def _nearest_error(space: Space, data: Dataset, train: Dataset) -> Array:
    """(n,) mean squared difference to the nearest training example, model units."""
    from latlas.metrics.arrays import nearest
    from latlas.verbs.passes import examples_of
    from latlas.verbs.sample_quality import capped

    both, unit = [examples_of(data), examples_of(capped(train))], space.scale
    if not isinstance(unit, (int, float)):  # images as stored: floats take four times as much
        both, unit = [np.asarray(space.to_model(x.astype(np.float32))) for x in both], 1.0
    x, y = (x.reshape(len(x), -1) for x in both)
    return np.square(nearest(x, y)[0][:, 0] / float(unit)) / space.dims
