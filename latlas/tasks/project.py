"""The code of a given item, by descent on the code: any decoder, no encoder needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.errors import ConfigError, unknown
from latlas.core.model import Guesses, HasStyles, Model
from latlas.core.noise import Noise
from latlas.data.dataset import Dataset
from latlas.metrics.arrays import nearest
from latlas.metrics.features import Network
from latlas.report import pictures
from latlas.tasks.common import (
    Array,
    Progress,
    can,
    check,
    condition_of,
    inference,
    items_of,
    noise,
    sweep,
    to_data,
)
from latlas.tasks.generate import drawn_codes, styles_of
from latlas.tasks.output import check_items, write_bytes, write_items
from latlas.tasks.quality import capped, feature_extractor

#: pictures of the way that are kept, and codes that are followed at once
FRAMES, ROWS = 8, 64
#: step size at the start, in standard deviations of the codes, and draws it is measured on
RATE, DRAWS = 0.1, 512


@dataclass(frozen=True)
class Projection:
    """Codes found for given items.

    Attributes:
        space: ``z`` or ``w``, that of the codes.
        codes: (n, d), the best of all starts.
        originals, items: (n, \\*shape) in data units, as given and as decoded from the codes.
        way: (n, 8, \\*shape) what was decoded on the way, from the start that ended best.
        error: (n,) mean squared difference per scalar, model units.
        nearest: (n,) the same of the nearest training item; ``None`` where no data was given.
    """

    space: str
    codes: Array
    originals: Array
    items: Array
    way: Array
    error: Array
    nearest: Array | None = None

    def columns(self) -> dict[str, Array]:
        """A row per item, for a table."""
        near = {} if self.nearest is None else {"nearest": self.nearest}
        return {"item": np.arange(len(self.codes)), "error": self.error, **near}


def project(model: Model, data: Dataset, *, train: Dataset | None = None, space: str = "auto",
            starts: int = 8, steps: int = 200, features: Any = None, seed: int = 0,
            progress: Progress | None = None) -> Projection:
    """The code whose decoded item is nearest to each given one.

    Adam on the code, of each item from several starts: the encoder's code where there is one, the
    mean style where codes are styles, in half of them what the model guesses where it can, and
    draws of the prior. The loss is the mean squared difference per scalar, in model units; with
    ``features`` plus ‖f(x) − f(y)‖² / ‖f(x)‖². Of all codes met the one of least loss is kept.

    Args:
        train: items among which the nearest to each given one is looked for, for comparison.
        space: ``z``, ``w`` (one style for all layers), or ``auto``: w where there are styles.
        features: a network's name, file or module (see ``latlas.metrics.features``).

    Raises:
        CapabilityError: no decoder, or no styles; ConfigError: a wrong setting.
    """
    check(model, "decode")
    if starts < 1 or steps < 1:
        raise ConfigError(f"starts={starts}, steps={steps}: at least 1 of either")
    room = _Room(model, _space(model, space), seed)
    look = _look(features, model, train if train is not None else data, seed)
    found: list[tuple[Array, ...]] = []
    for batch in sweep(model, data, max(1, ROWS // starts)):
        found.append(_found(room, batch, starts, steps, look))
        if progress:
            progress(sum(len(part[0]) for part in found), len(data))
    codes, items, way, error = (np.concatenate(parts) for parts in zip(*found, strict=True))
    near = None if train is None else _nearest_error(model, data, capped(train))
    return Projection(room.space, codes, items_of(data), items, way, error, near)


class _Room:
    """A space of codes: where starts are drawn, and how a code is decoded."""

    def __init__(self, model: Any, space: str, seed: int) -> None:
        self.model, self.space, self.seed = model, space, seed
        with inference(model, gradients=True):
            self.unit = float(self._drawn(DRAWS, {}, seed, "project").std())

    def _drawn(self, n: int, condition: dict[str, Tensor], *words: int | str) -> Tensor:
        z = drawn_codes(self.model, n, noise(self.model, *words), condition)
        if z is None:
            z = noise(self.model, *words).normal(n, self.model.latent_dim)
        return self.model.to_w(z) if self.space == "w" else z  # type: ignore[no-any-return]

    def starts(self, batch: Batch, told: dict[str, Tensor], n: int) -> Tensor:
        """(n, items, d), of items that are conditioned on what is ``told``."""
        drawn = torch.stack([self._drawn(len(batch), told, self.seed, "start", k)
                             for k in range(n)])
        if self.space == "w":
            drawn[0] = self.model.mean_w()
        elif can(self.model, "encode"):
            drawn[0] = self.model.encode(batch.x, **told).mean
        else:
            for k in range((n + 1) // 2):
                near = self._guessed(batch, told, noise(self.model, self.seed, "guess", k))
                drawn[k] = drawn[k] if near is None else near
        return drawn

    def _guessed(self, batch: Batch, told: dict[str, Tensor], draws: Noise) -> Tensor | None:
        """(items, d), where the model has an idea."""
        model = self.model
        return model.guess(batch.x, noise=draws, **told) if isinstance(model, Guesses) else None

    def decode(self, code: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """(m, d) to (m, \\*shape), model units."""
        if self.space == "w":
            made: Tensor = self.model.decode_w(code).mean
        else:
            made = self.model.decode(code, **condition).mean
        return made.float()


def _space(model: Model, asked: str) -> str:
    if asked not in ("auto", "z", "w"):
        raise ConfigError(unknown("space", asked, ["auto", "z", "w"]))
    if asked == "w":
        styles_of(model, "space w")
    return ("w" if isinstance(model, HasStyles) else "z") if asked == "auto" else asked


def _look(source: Any, model: Model, data: Dataset, seed: int) -> Callable[[Tensor], Tensor] | None:
    """Features through which a gradient passes."""
    if source is None:
        return None
    made = feature_extractor(source, data, seed, str(model.device))
    if not isinstance(made, Network):
        raise ConfigError(f"features={source} is no network that a gradient passes through; "
                          "choose random-conv, classifier or a module")
    body = made.module.to(model.device).eval()
    return lambda x: body(x).float().flatten(1)


def _found(room: _Room, batch: Batch, starts: int, steps: int,
           look: Callable[[Tensor], Tensor] | None) -> tuple[Array, ...]:
    """Codes, items, the way there and errors of one batch."""
    n, model = len(batch), room.model
    with inference(model, gradients=True):
        told = condition_of(model, batch)
        begin = room.starts(batch, told, starts).flatten(0, 1)
        given = {k: v.repeat(starts, *[1] * (v.dim() - 1)) for k, v in told.items()}
        target = batch.x.repeat(starts, *[1] * (batch.x.dim() - 1))
        codes, loss, way = _descend(lambda z: room.decode(z, given), begin, room.unit,
                                    _distance(target, look), steps)
        best = loss.view(starts, n).argmin(0) * n + torch.arange(n, device=loss.device)
        code = codes[best]
        made = room.decode(code, told)
        error = (made - batch.x).square().flatten(1).mean(1)
    frames = np.stack([to_data(model.space, frame[best]) for frame in way], 1)
    return (np.asarray(code.cpu()), to_data(model.space, made), frames,
            np.asarray(error.double().cpu()))


def _distance(target: Tensor, look: Callable[[Tensor], Tensor] | None) -> Callable[
        [Tensor], Tensor]:
    """(m,) loss of decoded items."""
    wanted = None if look is None else look(target)

    def distance(made: Tensor) -> Tensor:
        loss = (made - target).square().flatten(1).mean(1)
        if look is None or wanted is None:
            return loss
        return loss + (look(made) - wanted).square().sum(1) / wanted.square().sum(1).clamp(min=1e-9)

    return distance


def _descend(decode: Callable[[Tensor], Tensor], begin: Tensor, unit: float,
             distance: Callable[[Tensor], Tensor],
             steps: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The best code of every row, its loss, and what was decoded at equal distances of steps.

    Adam works number by number, so no row depends on another.
    """
    code = begin.clone().requires_grad_()
    optimiser = torch.optim.Adam([code])
    best, least = begin.clone(), torch.full((len(begin),), torch.inf, device=begin.device)
    shown, way = set(np.linspace(0, steps, FRAMES).astype(int).tolist()), []
    for step in range(steps + 1):
        optimiser.param_groups[0]["lr"] = RATE * unit * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            made = decode(code)
            loss = distance(made)
            code.grad, = torch.autograd.grad(loss.sum(), code)
        better = loss.detach() < least
        best[better], least[better] = code.detach()[better], loss.detach()[better]
        way += [made.detach()] if step in shown else []
        optimiser.step()
    return best, least, way + [way[-1]] * (FRAMES - len(way))


def _nearest_error(model: Model, data: Dataset, train: Dataset) -> Array:
    """(n,) mean squared difference to the nearest training item, model units."""
    space = model.space
    if isinstance(space.scale, (int, float)):  # as stored: floats would take four times as much
        both, unit = [items_of(data), items_of(train)], float(space.scale)
    else:
        both, unit = [np.asarray(space.to_model(items_of(d).astype(np.float32)))
                      for d in (data, train)], 1.0
    flat = [x.reshape(len(x), -1) for x in both]
    return np.square(nearest(flat[0], flat[1])[0][:, 0] / unit) / space.dims


def write_projection(path: Path, found: Projection, model: Model) -> str:
    """A row for each item: the original, the way, and the end; as ``.gif`` an animation of that.

    Other endings hold the items that were found, as :func:`write_items` does.
    """
    check_items(path, model.space)
    suffix, space = path.suffix.lower(), model.space
    ends = found.originals[:, None], found.items[:, None]
    if suffix not in (".png", ".gif") or space.kind != "picture":
        return write_items(path, found.items, space)
    if suffix == ".png":
        strip = np.concatenate([ends[0], found.way, ends[1]], 1)
        return write_items(path, strip.reshape(-1, *space.shape), space, columns=strip.shape[1])
    frames = [np.concatenate([ends[0], frame[:, None]], 1).reshape(-1, *space.shape)
              for frame in (*np.moveaxis(found.way, 1, 0), found.items)]
    grids = [pictures.grid(frame, space.levels, columns=2)[..., :3] for frame in frames]
    write_bytes(path, pictures.gif(np.moveaxis(np.stack(grids), -1, 1), seconds=0.4,
                                   bounce=False))
    return f"wrote {len(found.items)} projections to {path}"
