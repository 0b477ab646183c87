"""The verbs that make items: out of codes and styles, and codes for items that are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.runs import Array, Count, Items, Run, both, model_of, open_data, training_items
from latlas.core.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.tasks.project import Projection
    from latlas.tasks.styles import Directions

#: what the options of a conditional model name
_TAKEN = {"label": "a label", "given": "a part of a picture"}


def sample(run: Run, n: int = 16, *, seed: int = 0, seeds: Sequence[int] | None = None,
           label: Any = None, given: Items = None, mean: bool | None = None, prior: str = "auto",
           truncation: float = 1.0) -> Array:
    """``n`` new items, (n, \\*shape).

    Args:
        seeds: one item of each, whatever ``n`` and ``seed`` are.
        label: for a conditional model: a class name, or several that take turns.
        given: for a model of a part of the picture: the pictures to complete, taking turns.
        mean: the mean of p(x|z), or a draw from it. By default pictures are means, tables and
            points are drawn.
        prior: the model's ``own``, the one ``fitted`` to its codes by :func:`fit_prior`, or
            ``auto``: the fitted one where there is one.
        truncation: ψ, how far styles are taken from their mean: below 1 more likely pictures and
            less varied ones; of a model that has styles.
    """
    from latlas.api.items import require_styles
    from latlas.tasks import generate

    require_styles(run, "sample truncation", truncation != 1)
    model = model_of(run, "sample")
    settings: Any = {"mean": mean, "prior": prior, "truncation": truncation}
    if seeds is not None:
        settings["condition"] = _condition(model, len(seeds), label, given)
        return generate.sample_seeds(model, seeds, **settings)
    condition = _condition(model, n, label, given)
    return generate.sample(model, n, seed=seed, condition=condition, **settings)


def decode(run: Run, codes: Any, *, label: Any = None, given: Items = None) -> Array:
    """The item at each code (n, latent_dim); ``label`` and ``given`` as for :func:`sample`."""
    from latlas.tasks import generate

    model = model_of(run, "decode")
    return generate.decode(model, codes, condition=_condition(model, len(codes), label, given))


def prior_codes(run: Run, n: int, *, seed: int = 0, label: Any = None) -> Array:
    """Codes that samples are made of, (n, latent_dim), for walks and edits; ``label`` as for
    :func:`sample`: of a ``conditional-gan`` codes differ by class."""
    from latlas.tasks.styles import codes_of_prior

    model = model_of(run, "decode", "codes of the prior")
    return codes_of_prior(model, n, seed, _condition(model, n, label))


def interpolate(run: Run, start: Any, end: Any, *, steps: int = 8, path: str = "line",
                space: str = "z", label: Any = None, given: Items = None) -> Array:
    """Items on the way from one code to another, (steps, \\*shape); ``path`` line or circle.

    ``space`` w goes from the style of the first to that of the last. ``label`` as for
    :func:`sample`, but of several each has a stretch of the way; of the pictures ``given`` the
    first serves the whole way.
    """
    import numpy as np

    from latlas.api.items import require_styles
    from latlas.tasks import generate

    require_styles(run, "interpolate space=w", space == "w")
    model = model_of(run, "decode", "interpolate")
    condition = _condition(model, 1 if given is not None else steps, label, given)
    if given is None and isinstance(label, (list, tuple)):
        condition = condition[np.argsort(np.arange(steps) % len(label), kind="stable")]
    return generate.interpolate(model, start, end, steps, path,  # type: ignore[arg-type]
                                space=space, condition=condition)


def traverse(run: Run, *, code: Any = None, dims: Sequence[int] | None = None, span: float = 3.0,
             steps: int = 7, codes: Any = None, label: Any = None,
             given: Items = None) -> Array:
    """One dimension of the code varied at a time, (len(dims), steps, \\*shape).

    Args:
        codes: (n, latent_dim) of data, which set centre, spans, and most active dimension first.
        label: as for :func:`sample`; of the pictures ``given`` the first serves every step.
    """
    from latlas.tasks import generate

    model = model_of(run, "decode", "traverse")
    n = (model.latent_dim if dims is None else len(dims)) * steps
    condition = _condition(model, 1 if given is not None else n, label, given)
    return generate.traverse(model, code=code, dims=dims, span=span, steps=steps, codes=codes,
                             condition=condition)


def project(run: Run, data: Items = None, split: str | None = None, *, starts: int = 8,
            steps: int = 200, space: str = "auto", features: Any = None, seed: int = 0,
            progress: Count | None = None, **options: Any) -> Projection:
    """The code whose decoded item is nearest to each given one, by descent on the code.

    ``.codes``, ``.items``, ``.error`` beside ``.nearest``, that of the nearest training item, and
    ``.way``, what was decoded on the way; see :func:`latlas.tasks.project.project`.
    """
    from latlas.api.items import require_styles
    from latlas.tasks.project import project as find

    require_styles(run, "project space=w", space == "w")
    model, items = both(run, data, split, options, "decode")
    return find(model, items, train=training_items(run, data, options), starts=starts,
                steps=steps, space=space, features=features, seed=seed, progress=progress)


def translate(run: Run, data: Items = None, split: str | None = None, *, to: str = "B",
              progress: Count | None = None, **options: Any) -> Array:
    """Every item in domain ``to``, (n, \\*shape of that domain).

    ``data`` are items of the other domain; of a source with two sides the side that is meant. Of
    recordings that are named by their place it is a list of whole ones,
    :class:`latlas.data.sound.Clip`.
    """
    from latlas.api.items import open_items, require
    from latlas.api.voices import hears, open_clips
    from latlas.data.pairs import first_side
    from latlas.tasks.translate import translate as turn

    require(run, "translate")
    if hears(run) and (data is None or isinstance(data, str | Path)):
        from latlas.tasks.voices import translate_clips

        clips = open_clips(run, data, split, side="A" if to == "B" else "B", **options)
        return list(translate_clips(model_of(run, None), clips, to=to, progress=progress))
    items = open_items(run, data, split, side="A" if to == "B" else "B", **options)
    return turn(model_of(run, None), first_side(items), to=to, progress=progress)


def mix(run: Run, rows: Sequence[int], columns: Sequence[int], *, layers: str = "coarse",
        truncation: float = 1.0) -> Array:
    """The picture of each seed of ``rows`` with some styles of each of ``columns``,
    (rows + 1, columns + 1, \\*shape): first row and column are the pictures themselves.

    ``layers``: coarse, middle, fine, or numbers of layers (``0-3,6``).
    """
    from latlas.tasks import styles

    return styles.mix(model_of(run, "mix"), rows, columns, layers=layers,
                      truncation=truncation)


def directions(run: Run, k: int | None = None, *, data: Items = None, split: str | None = None,
               label: Any = None, seed: int = 0, **options: Any) -> Directions:
    """Directions of the codes, or styles, in which items change most: ``.axes``, ``.share``.

    ``k`` is 8, or all of fewer, by default; ``data`` are encoded where the model has an encoder
    and no styles; ``label`` is the class that is decoded by a conditional model.
    """
    from latlas.tasks import styles

    model = model_of(run, "decode", "directions")
    items = None if data is None else open_data(data, split, like=run, **options)
    return styles.directions(model, k, data=items, seed=seed, condition=_one(model, label))


def edit(run: Run, found: Directions, *, seed: int | None = None, steps: int = 7,
         span: float = 3.0, layers: str = "all", label: Any = None) -> Array:
    """One direction of :func:`directions` at a time, (k, steps, \\*shape), around the item of
    ``seed`` or the mean; ``layers`` are the styles that change, ``label`` as there."""
    from latlas.api.items import require_styles
    from latlas.tasks import styles

    require_styles(run, "edit layers", layers != "all")
    model = model_of(run, "decode", "edit")
    return styles.edits(model, found, seed=seed, steps=steps, span=span, layers=layers,
                        condition=_one(model, label))


def _condition(model: Model, n: int, label: Any, given: Items = None) -> Any:
    """What a conditional model is given for each of ``n`` items; ``None`` if nothing was named."""
    import numpy as np

    if label is None and given is None:
        return None
    _must_take(model, "label" if given is None else "given")
    if given is not None:
        return _parts(model, n, given)
    from latlas.api.items import class_codes

    return np.resize(class_codes(model.space, label), n)


def _one(model: Model, label: Any) -> Any:
    """One class for all items; ``None`` if none was named."""
    if isinstance(label, (list, tuple)) and len(label) != 1:
        raise ConfigError(f"name one class for all items, not {', '.join(map(str, label))}")
    return _condition(model, 1, label)


def _must_take(model: Model, option: str) -> None:
    """Raise CapabilityError if the model is not conditioned on what an option names."""
    name, takes = type(model).__name__, "none"
    if model.condition_dim:
        takes = "given" if getattr(model.config, "condition", "") == "part" else "label"
    if takes == "none":
        raise CapabilityError(f"{name} is not conditional; leave out `{option}`, or train a model "
                              "that is: conditional-gan, conditional-vae")
    if takes != option:
        raise CapabilityError(f"this {name} is conditioned on {_TAKEN[takes]}: name it with "
                              f"`{takes}`, not `{option}`")


def _parts(model: Model, n: int, given: Items) -> Any:
    """The known part of each of ``n`` pictures, (n, C + 1, H, W)."""
    from latlas.data.batches import Sweep
    from latlas.tasks.common import condition_of

    items = open_data(given, like=model)
    rows = [i % len(items) for i in range(n)]
    batch = next(iter(Sweep(items.subset(rows), n)))  # type: ignore[arg-type]
    return condition_of(model, batch)["condition"]
