"""Sources of two sides: pairs and domains, from file to batch."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import DataError
from latlas.core.model import Loss, Model, PairBatch, Phase, Step
from latlas.core.options import option
from latlas.core.space import (
    Column,
    Images,
    PairSpace,
    Points,
    Recordings,
    Sound,
    Table,
    parse_space,
)
from latlas.data import info, open_pair, open_source, pack, split
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset, Source, partition
from latlas.data.images import to_ids
from latlas.data.pairs import PairDataset, sides_for

N = 20
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (N, 6, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (N, 6, 8, 3), dtype=np.uint8)
FIRST = np.moveaxis(COLOUR, -1, 1)


def save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def fill(folder: Path, images: Any, ending: str = ".png") -> Path:
    for i, image in enumerate(images):
        save(folder / f"{i:02}{ending}", image)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    fill(tmp_path / "ab/A", GREY)
    fill(tmp_path / "ab/B", COLOUR, ".bmp")
    return tmp_path / "ab"


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    for name, part in (("trainA", GREY[:7]), ("trainB", COLOUR[:13]), ("testA", GREY[7:9]),
                       ("testB", COLOUR[13:16])):
        fill(tmp_path / "domains" / name, part)
    return tmp_path / "domains"


def both(source: Any, which: str = "all") -> tuple[Any, Any]:
    data = split(source, which)
    assert data.space == PairSpace(data.a.space, data.b.space, source.aligned)
    return data.a.take("x"), data.b.take("x")


# what is a source of two sides


def test_a_folder_of_pairs(pairs: Path) -> None:
    source = open_source(pairs)
    a, b = both(source)
    np.testing.assert_array_equal(a[:, 0], GREY)
    np.testing.assert_array_equal(b, FIRST)
    assert source.aligned and source.space.a.shape == (1, 6, 8)
    assert source.space.b.shape == (3, 6, 8)


def test_a_zip_of_pairs_inside_a_folder_with_parts_and_classes(tmp_path: Path) -> None:
    for i in range(N):
        name = f"{'train' if i < 12 else 'test'}/{'cat' if i % 2 else 'dog'}/{i:02}.png"
        save(tmp_path / "all/A" / name, GREY[i])
        save(tmp_path / "all/B" / name, COLOUR[i])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted((tmp_path / "all").rglob("*.png")):
            archive.write(file, f"set/{file.relative_to(tmp_path / 'all')}")
    source = open_source(tmp_path / "all.zip")
    assert source.a.space.classes == ("cat", "dog")
    assert {k: len(v) for k, v in partition(source.a).items()} == {
        "train": 11, "validation": 1, "test": 8}
    for part in ("train", "validation", "test"):
        a, b = both(source, part)
        index = [int(np.flatnonzero((x[0] == GREY).all((1, 2)))[0]) for x in a]
        np.testing.assert_array_equal(b, FIRST[index])


def test_pairs_are_matched_by_name_where_their_endings_sort_otherwise(tmp_path: Path) -> None:
    names = {"a": ".png", "a.day": ".png", "b": ".bmp", "b-1": ".PNG", "c": ".BMP"}
    turned = {"a": ".bmp", "a.day": ".png", "b": ".PNG", "b-1": ".bmp", "c": ".png"}
    for i, name in enumerate(names):
        save(tmp_path / f"ab/A/{name}{names[name]}", GREY[i])
        save(tmp_path / f"ab/B/{name}{turned[name]}", COLOUR[i])
    orders = [[p.stem for p in sorted((tmp_path / "ab" / side).iterdir())] for side in "AB"]
    assert orders[0] != orders[1]
    for source in (open_source(tmp_path / "ab"),
                   open_pair(tmp_path / "ab/A", tmp_path / "ab/B", paired=True)):
        a, b = both(source)
        index = [int(np.flatnonzero((x[0] == GREY).all((1, 2)))[0]) for x in a]
        assert sorted(index) == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(b, FIRST[index])


def test_the_part_may_stand_above_the_side(tmp_path: Path) -> None:
    for side, images in (("A", GREY), ("B", COLOUR)):
        fill(tmp_path / "train" / side, images[:12])
        fill(tmp_path / "test" / side, images[12:])
    a, b = both(open_source(tmp_path), "test")
    np.testing.assert_array_equal(a[:, 0], GREY[12:])
    np.testing.assert_array_equal(b, FIRST[12:])


def test_side_by_side(tmp_path: Path) -> None:
    wide = np.concatenate([COLOUR, COLOUR[::-1]], axis=2)
    fill(tmp_path, wide)
    a, b = both(open_source(tmp_path, pair="side"))
    np.testing.assert_array_equal(a, FIRST)
    np.testing.assert_array_equal(b, FIRST[::-1])
    small = open_source(tmp_path, pair="side", image_size="4", mode="L")
    assert small.space.a.shape == (1, 4, 4) and small.space.b == small.b.space
    alone = Image.fromarray(COLOUR[0]).resize((4, 4), Image.Resampling.LANCZOS, box=(1, 0, 7, 6))
    cut = open_source(tmp_path, pair="side", image_size=4)
    np.testing.assert_array_equal(both(cut)[0][0], np.moveaxis(np.asarray(alone), -1, 0))
    save(tmp_path / "07.png", wide[0][:, :-1])
    with pytest.raises(DataError, match=r"07\.png .*15 pixels wide, which is odd"):
        open_source(tmp_path, pair="side", image_size=4)


@pytest.mark.parametrize("keys", [("A", "B"), ("x", "y"), ("images", "targets")])
def test_two_arrays_of_an_npz(tmp_path: Path, keys: tuple[str, str]) -> None:
    np.savez(tmp_path / "p.npz", **{keys[0]: GREY, keys[1]: COLOUR})
    a, b = both(open_source(tmp_path / "p.npz"))
    np.testing.assert_array_equal(a[:, 0], GREY)
    np.testing.assert_array_equal(b, FIRST)
    a, b = both(open_source(tmp_path / "p.npz", direction="BtoA", image_size=6))
    assert a.shape == (N, 3, 6, 6) and b.shape == (N, 1, 6, 6)


def test_two_arrays_of_an_npz_with_parts_and_groups(tmp_path: Path) -> None:
    group = np.arange(N) // 2
    np.savez(tmp_path / "p.npz", A_train=GREY[:15], B_train=COLOUR[:15], A_test=GREY[15:],
             B_test=COLOUR[15:])
    a, b = both(open_source(tmp_path / "p.npz"), "test")
    np.testing.assert_array_equal(a[:, 0], GREY[15:])
    np.testing.assert_array_equal(b, FIRST[15:])
    np.savez(tmp_path / "g.npz", A=GREY, B=COLOUR, group=group)
    source = open_source(tmp_path / "g.npz")
    rows = partition(source.a)
    for part, index in partition(source.b).items():
        np.testing.assert_array_equal(index, rows[part])
    assert not set(group[rows["train"]]) & set(group[rows["test"]])


def test_other_npz_files_open_as_before(tmp_path: Path) -> None:
    label = np.arange(N) % 3
    for arrays in ({"x": GREY, "y": label}, {"x": GREY, "y": np.eye(3)[label]},
                   {"x": GREY, "y": COLOUR[:5]}, {"x": GREY, "y": COLOUR[:, :2, :3]}):
        np.savez(tmp_path / "p.npz", **arrays)
        assert isinstance(open_source(tmp_path / "p.npz"), Source)
    np.savez(tmp_path / "p.npz", a=GREY, b=COLOUR)
    with pytest.raises(DataError, match="choose the examples with key="):
        open_source(tmp_path / "p.npz")
    np.savez(tmp_path / "p.npz", x=GREY, y=COLOUR)
    assert isinstance(open_source(tmp_path / "p.npz", key="x"), Source)
    assert isinstance(open_source(tmp_path / "p.npz", label="none"), Source)


def test_two_domains(domains: Path) -> None:
    source = open_source(domains)
    assert not source.aligned
    sizes = {part: [len(x) for x in both(source, part)] for part in ("train", "test", "all")}
    assert sizes == {"train": [6, 12], "test": [2, 3], "all": [9, 16]}
    np.testing.assert_array_equal(both(source, "test")[1], FIRST[13:16])
    turned = open_source(domains, direction="BtoA")
    assert [len(x) for x in both(turned, "train")] == [12, 6]
    for name in ("testA", "testB"):
        for file in (domains / name).iterdir():
            file.unlink()
    assert open_source(domains).a.space.classes == ()
    assert [len(x) for x in both(open_source(domains), "test")] == [1, 1]


def test_folders_of_two_sides_may_be_said_to_be_otherwise(pairs: Path, tmp_path: Path) -> None:
    assert open_source(pairs, pair="none").space.classes == ("A", "B")
    (pairs / "B/00.bmp").unlink()
    apart = open_source(pairs, paired="false")
    assert not apart.aligned and [len(x) for x in both(apart)] == [N, N - 1]
    fill(tmp_path / "t/trainA", GREY)
    fill(tmp_path / "t/trainB", COLOUR)
    assert open_source(tmp_path / "t", paired=True).aligned
    for folder in ("C", "A/deep"):  # other folders are classes as before
        fill(tmp_path / "letters" / folder, GREY[:4])
    fill(tmp_path / "letters/B", GREY[4:8])
    assert open_source(tmp_path / "letters").space.classes == ("A", "B", "C")


def test_two_sources(tmp_path: Path, pairs: Path) -> None:
    horses, zebras = fill(tmp_path / "horses", GREY), fill(tmp_path / "zebras", COLOUR[:9])
    source = open_source((str(horses), zebras), image_size=5)
    assert not source.aligned and source.name == "horses-zebras"
    assert [x.shape for x in both(source)] == [(N, 1, 5, 5), (9, 3, 5, 5)]
    again = open_source(json.loads(json.dumps(source.spec)))
    np.testing.assert_array_equal(both(again)[1], both(source)[1])
    together = open_pair(pairs / "A", pairs / "B", paired="true", direction="BtoA")
    assert together.aligned and together.space.a.shape == (3, 6, 8)
    assert open_source(together.spec).space == together.space
    arrays = open_pair(GREY, COLOUR, paired=True)
    assert arrays.spec is None and arrays.aligned
    np.testing.assert_array_equal(both(arrays)[1], FIRST)
    assert isinstance(open_source((GREY, np.arange(N) % 2)), Source)
    ring = open_pair("ring", "moons", n=50)
    assert ring.space.b == open_source("moons", n=50).space
    assert open_source(ring.spec).space == ring.space
    mixed = open_pair(split(source, "train").a, open_source("digits"))
    assert [len(x) for x in both(mixed)] == [16, 1797]


# maps of classes


def test_maps_become_channels(tmp_path: Path) -> None:
    ids = RNG.choice(np.array([0, 3, 7], np.uint8), (N, 6, 8))
    palette = Image.fromarray(ids[0])
    palette.putpalette(list(range(255, -1, -1)) * 3)
    fill(tmp_path / "A", COLOUR)
    fill(tmp_path / "B", ids)
    palette.save(tmp_path / "B/00.png")
    source = open_source(tmp_path, maps="B")
    _, b = both(source)
    target = source.space.b
    assert target.ids == (0, 3, 7) and b.shape == (N, 3, 6, 8)
    assert set(np.unique(b)) == {0, 255} and (b.sum(axis=1, dtype=int) == 255).all()
    np.testing.assert_array_equal(to_ids(b, target), ids)
    assert parse_space(json.loads(json.dumps(source.space.to_json()))) == source.space
    a, _ = both(open_source(tmp_path, maps="B", direction="BtoA", image_size=3))
    np.testing.assert_array_equal(to_ids(a, target), ids[:, 1::2, 2::2][:, :, :3])
    one = open_source(tmp_path / "B", maps="A", ids="0,3,5,7")
    assert one.space.shape == (4, 6, 8) and one.space.ids == (0, 3, 5, 7)
    with pytest.raises(DataError, match="the class id 3, which is none of ids=0,7"):
        open_source(tmp_path, maps="B", ids="0,7")
    with pytest.raises(DataError, match="RGB colours, not class ids"):
        open_source(tmp_path, maps="A")


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, bool])
def test_maps_of_arrays(tmp_path: Path, kind: Any) -> None:
    ids = RNG.integers(0, 2 if kind is bool else 3, (N, 6, 8)).astype(kind)
    np.savez(tmp_path / "p.npz", A=ids, B=COLOUR)
    source = open_source(tmp_path / "p.npz", maps="A")
    np.testing.assert_array_equal(to_ids(both(source)[0], source.a.space), ids)
    second = open_pair(COLOUR, ids, maps="B", image_size=6)
    np.testing.assert_array_equal(to_ids(both(second)[1], source.a.space), ids[:, :, 1:7])


def test_what_is_no_map(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", A=np.arange(N * 48).reshape(N, 6, 8), B=COLOUR)
    for maps, words in (("A", "960 different class ids, at most 256"), ("B", "one id per pixel"),
                        ("C", "unknown maps 'C'")):
        with pytest.raises(DataError, match=words):
            open_source(tmp_path / "p.npz", maps=maps)
    with pytest.raises(DataError, match="not class ids"):
        open_pair(GREY / 255, COLOUR, maps="A")


# larger than memory


@pytest.mark.parametrize("kind", ["pairs", "domains"])
def test_packed(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    source, packed = open_source(place), pack(place, tmp_path / "packed")
    assert packed.aligned == source.aligned and packed.space == source.space
    assert {info(packed)[side]["stored"] for side in "ab"} == {"memory map"}
    again = pack(source, tmp_path / "again")
    for part in ("train", "test"):
        for result, also, expected in zip(*(both(s, part) for s in (packed, again, source)),
                                       strict=True):
            np.testing.assert_array_equal(result, expected)
            np.testing.assert_array_equal(also, expected)


def test_both_sides_are_packed_when_one_is_large(pairs: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("latlas.data.dataset.available_memory", lambda: 2000)
    for _ in range(2):  # packed, then found
        source = open_source(pairs)
        assert isinstance(source.a.base.x, np.memmap)
        assert isinstance(source.b.base.x, np.memmap)
        np.testing.assert_array_equal(both(source)[1], FIRST)
    two = open_source([pairs / "A", pairs / "B"], paired=True)
    assert isinstance(two.a.base.x, np.memmap) and two.aligned
    ids = RNG.integers(0, 5, (N, 6, 8)).astype(np.uint8)
    maps = open_pair(fill(tmp_path / "ids", ids), pairs / "B", maps="A")
    assert isinstance(maps.a.base.x, np.memmap)
    np.testing.assert_array_equal(to_ids(both(maps)[0], maps.a.space), ids)


# what does not fit


def test_unequal_names_are_listed(pairs: Path) -> None:
    for i in range(5):
        (pairs / f"B/{i:02}.bmp").rename(pairs / f"B/x{i}.bmp")
    with pytest.raises(DataError, match=r"5 only in A \(00, 01, 02, \.\.\.\); 5 only in B \(x0"):
        open_source(pairs)
    with pytest.raises(DataError, match="5 only in A"):
        open_pair(pairs / "A", pairs / "B", paired=True)
    save(pairs / "A/07.bmp", GREY[0])
    with pytest.raises(DataError, match=r"A/07\.bmp and A/07\.png have one name"):
        open_source(pairs)


def test_sizes_that_do_not_fit(pairs: Path) -> None:
    save(pairs / "B/03.bmp", np.repeat(np.repeat(COLOUR[3], 2, 0), 2, 1))
    with pytest.raises(DataError, match=r"A/03\.png \(8x6\) and B/03\.bmp \(16x12\) differ in "
                                        "size; image_size= resizes both"):
        open_source(pairs)
    assert [x.shape[2:] for x in both(open_source(pairs, image_size=4))] == [(4, 4)] * 2
    save(pairs / "B/03.bmp", COLOUR[3, :, :6])
    with pytest.raises(DataError, match=r"B/03\.bmp \(6x6\) differ in proportions"):
        open_source(pairs, image_size=4, mode="L")


def test_damaged_pictures(pairs: Path) -> None:
    (pairs / "A/02.png").write_bytes(b"no picture")
    (pairs / "B/05.bmp").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"A/02\.png cannot be decoded"):
        open_source(pairs)
    a, b = both(open_source(pairs, on_error="skip"))
    rows = [i for i in range(N) if i not in (2, 5)]
    np.testing.assert_array_equal(a[:, 0], GREY[rows])
    np.testing.assert_array_equal(b, FIRST[rows])
    for file in (pairs / "B").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"B/00\.bmp cannot be decoded"):
        open_source(pairs, on_error="skip")


def test_a_side_that_is_missing(domains: Path, tmp_path: Path) -> None:
    fill(tmp_path / "one/set/trainA", GREY)
    with pytest.raises(DataError, match="there is trainA, but no trainB"):
        open_source(tmp_path / "one")
    (tmp_path / "one/set/trainB").mkdir()
    with pytest.raises(DataError, match="trainB holds no images"):
        open_source(tmp_path / "one")
    fill(tmp_path / "two/A", GREY)
    assert isinstance(open_source(tmp_path / "two"), Source)
    (tmp_path / "two/B").mkdir()
    with pytest.raises(DataError, match="B holds no images"):
        open_source(tmp_path / "two")
    with pytest.raises(DataError, match="empty folder"):
        open_pair(tmp_path / "two/A", tmp_path / "two/B", paired=True)


@pytest.mark.parametrize(("options", "message"), [
    ({"pair": "top"}, "unknown pair 'top'"), ({"direction": "B"}, "unknown direction 'B'"),
    ({"maps": "b"}, "unknown maps 'b'"), ({"paired": "maybe"}, "paired='maybe'"),
    ({"maps": "A", "ids": "a,b"}, "ids=a,b is no list")])
def test_options_that_are_none(pairs: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(pairs, **options)


def test_sources_that_do_not_fit(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"20 examples, .* 4; pairs need as many"):
        open_pair(GREY, COLOUR[:4], paired=True)
    with pytest.raises(DataError, match="one height and width"):
        open_pair(GREY, COLOUR[:, :4], paired=True)
    with pytest.raises(DataError, match="two sides of its own"):
        open_pair(pairs, pairs)
    with pytest.raises(DataError, match="pair=side is for folders"):
        open_source(GREY, pair="side")
    with pytest.raises(DataError, match="paired= is for two sides"):
        open_source(pairs / "A", paired=True)
    np.savez(tmp_path / "p.npz", A=GREY, B=COLOUR[:4])
    with pytest.raises(DataError, match=r"p \(A\) holds 20 examples, p \(B\) 4; .*paired=false"):
        open_source(tmp_path / "p.npz")
    assert not open_source(tmp_path / "p.npz", paired="false").aligned


# from source to batch


def test_pairs_stay_together_in_every_split_and_subset() -> None:
    x = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    source = open_pair(x, 255 - x, paired=True)
    calls = []
    for part in ("train", "validation", "test"):
        for seed in (0, 1):
            data = split(source, part, seed=seed)
            np.testing.assert_array_equal(data.a.take("x"), 255 - data.b.take("x"))
        calls.extend(split(source, part).a.take("x")[:, 0, 0, 0])
        few = split(source, part).subset(np.array([3, 1, 1]))
        np.testing.assert_array_equal(few.a.take("x"), 255 - few.b.take("x"))
    assert sorted(calls) == list(range(200))
    assert info(source)["a"]["splits"] == info(source)["b"]["splits"]
    apart = split(open_pair(x, x[:50]), "train")
    assert len(apart.subset(slice(0, 3)).b) == 40
    with pytest.raises(ValueError, match="same rows"):
        PairDataset(apart.a, apart.b)


def numbered(n: int, aligned: bool, of: int = 0) -> PairDataset:
    """Example i of A is i, of B 1000 + i; the first two rows of either are left out."""
    space = Points((1,), location=(0.0,), scale=(1.0,))
    a, b = (Dataset(np.arange(k, dtype=np.float32)[:, None] + start, space,
                    rows=np.arange(2, k)) for k, start in ((n + 2, 0), ((of or n) + 2, 1000)))
    return PairDataset(a, replace(b, space=space.replace(scale=(2.0,))), aligned)


def test_batches_of_pairs() -> None:
    data = numbered(23, True)
    plain = Batches(data.a, 8, seed=3)
    batches = Batches(data, 8, seed=3)
    for k in range(7):
        batch = batches.at(k)
        torch.testing.assert_close(batch.a.x + 1000, batch.b.x * 2)
        torch.testing.assert_close(batch.a.x, plain.at(k).x)
    swept = torch.cat([torch.cat([p.a.x + 1000, 2 * p.b.x], 1) for p in Sweep(data, 5)])
    torch.testing.assert_close(swept[:, 0], torch.arange(1002.0, 1025.0))
    torch.testing.assert_close(swept[:, 0], swept[:, 1])


@pytest.mark.parametrize("paired", [True, False])
def test_every_pass_has_an_order_of_its_own(paired: bool) -> None:
    batches = Batches(numbered(50, paired), 50, seed=3)
    passes = [batches.at(k) for k in range(4)]
    for side in ("a", "b"):
        orders = {tuple(getattr(batch, side).x.flatten().tolist()) for batch in passes}
        assert len(orders) == 4 and len({tuple(sorted(order)) for order in orders}) == 1


def test_batches_of_two_domains_see_every_item_equally_often() -> None:
    data = numbered(7, False, of=11)
    batches, again = Batches(data, 4, seed=3), Batches(data, 4, seed=3)
    plain = Batches(data.a, 4, seed=3)
    targets = [batches.at(k).b.x for k in range(77)]
    for k in (70, 3, 5, 3):  # a function of (seed, k) alone
        torch.testing.assert_close(again.at(k).b.x, targets[k])
        torch.testing.assert_close(again.at(k).a.x, plain.at(k).x)
    values, counts = torch.cat(targets).mul(2).unique(return_counts=True)
    torch.testing.assert_close(values, torch.arange(1002.0, 1013.0))
    assert (counts == 4 * 77 // 11).all()
    other = Batches(data, 4, seed=4)
    assert any((other.at(k).b.x != targets[k]).any() for k in range(3))
    with pytest.raises(ValueError, match="no common order"):
        next(iter(Sweep(data, 4)))
    assert sum(map(len, Sweep(data.a, 4))) == 7


def test_the_order_of_b_says_nothing_about_the_order_of_a() -> None:
    data = numbered(500, False)
    batches = [Batches(data, 500, seed=s).at(0) for s in range(4)]
    for batch in batches:
        ranks = torch.cat([batch.a.x, batch.b.x * 2 - 1000], 1).T
        assert abs(float(torch.corrcoef(ranks)[0, 1])) < 0.2  # 4.5 standard errors


@pytest.mark.parametrize("aligned", [True, False])
def test_processes_share_a_batch(aligned: bool) -> None:
    data = numbered(9, aligned, of=9 if aligned else 5)
    whole = Batches(data, 7, seed=1)
    shares = [Batches(data, 7, seed=1, rank=r, world=3) for r in range(3)]
    for k in range(6):
        parts = [share.at(k) for share in shares]
        torch.testing.assert_close(torch.cat([p.a.x for p in parts]), whole.at(k).a.x)
        torch.testing.assert_close(torch.cat([p.b.x for p in parts]), whole.at(k).b.x)


def test_spaces_are_decoded_by_their_types() -> None:
    one = Images((1, 2, 2), classes=("a",))
    sound = Recordings((1, 32, 16), sound=Sound(8000, 64, 16, 80.0))
    table = Table(fields=(Column("a", "real", "Float64"), Column("b", "category", "String",
                                                                 categories=("c",))),
                  location=(0.5, 1.0), scale=(1.0, 2.5))
    for space in (one, sound, table, Points((2,), factors=("t",)), Images((1, 2, 2), None, (0, 1)),
                  PairSpace(one, Images((3, 2, 2), ids=(1, 2, 9)), False)):
        assert parse_space(json.loads(json.dumps(space.to_json()))) == space
    assert one.to_json() == {"type": "images", "shape": (1, 2, 2), "classes": ("a",)}
    for wrong, said in (({"target": None}, "unknown field `target`"), ({"shape": "1x2"}, "array"),
                        ({"type": "sheet"}, "'sheet'"), ({"levels": 2.5}, r"\$\.levels")):
        with pytest.raises(ValueError, match=said) as error:
            parse_space({**one.to_json(), **wrong})
        assert "\n" not in str(error.value)


# models


@dataclass(frozen=True)
class ShiftConfig:
    """A constant between the sides."""

    start: float = option(0.0, "where it begins")


class Shift(Model):
    """The mean difference of the sides, learnt from pairs."""

    Config = ShiftConfig
    needs = "pairs"
    phases = (Phase("only", ("shift",)),)
    latent_dim = 1

    def __init__(self, config: ShiftConfig, space: PairSpace) -> None:
        super().__init__(config, space)
        self.shift = nn.Linear(1, space.b.shape[0], bias=False)

    def loss(self, batch: PairBatch, step: Step) -> Loss:
        one = torch.ones(len(batch), 1, device=batch.b.x.device)
        error = (batch.b.x.mean((2, 3)) - self.shift(one)).square().mean()
        return Loss(error, {"error": error.detach()})


class Twice(Shift):
    """The same of two domains."""

    needs = "domains"


SHIFT, TWICE = f"{__name__}:Shift", f"{__name__}:Twice"
SHORT = {"images": 64, "batch_size": 8, "threads": 1, "progress": False}


def test_a_model_of_pairs_is_trained_and_finds_its_data_again(pairs: Path, tmp_path: Path) -> None:
    run = latlas.train(SHIFT, str(pairs), out=tmp_path / "run", **SHORT)
    assert run.outcome.best is not None  # held-out pairs have their other side
    trained = latlas.load(tmp_path / "run")
    assert trained.space == open_source(pairs).space
    examples = latlas.open_data(None, "test", like=tmp_path / "run")
    assert examples.space == trained.space
    assert isinstance(latlas.open_data(GREY, like=tmp_path / "run"), Dataset)
    fill(tmp_path / "C/A", GREY)
    fill(tmp_path / "C/B", GREY)
    assert latlas.open_data(tmp_path / "C", like=tmp_path / "run").space == trained.space


def test_maps_of_other_sources_have_the_channels_of_the_run(tmp_path: Path) -> None:
    ids = RNG.integers(0, 4, (N, 6, 8)).astype(np.uint8)
    fill(tmp_path / "ab/A", ids)
    fill(tmp_path / "ab/B", COLOUR)
    source = open_source(tmp_path / "ab", maps="A")
    latlas.train(SHIFT, source, out=tmp_path / "run", **SHORT)
    few = np.minimum(ids[:3], 1)
    result = latlas.open_data(fill(tmp_path / "new", few), like=tmp_path / "run")
    np.testing.assert_array_equal(to_ids(result.x, result.space), few)
    np.testing.assert_array_equal(latlas.open_data(few, like=tmp_path / "run").x, result.x)
    with pytest.raises(DataError, match="class id 9"):
        latlas.open_data(fill(tmp_path / "more", few + 9), like=tmp_path / "run")


def test_models_are_given_the_sides_they_need(pairs: Path, domains: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    for model, data, message in ((SHIFT, "digits", "needs data of two sides"),
                                 (TWICE, "digits", "two sides, such as a folder with trainA/"),
                                 (SHIFT, domains, "needs pairs, and these are two domains")):
        with pytest.raises(DataError, match=message):
            latlas.train(model, data, out=run, **SHORT)
        assert not Path(run).exists()
    together = split(open_source(pairs), "train")
    apart, note = sides_for(together, "domains", "x")
    assert not apart.aligned and "takes A and B as two domains" in note
    assert sides_for(together, "pairs", "x") == (together, "")
    latlas.train(TWICE, (pairs / "A", pairs / "B"), **SHORT)
    assert cli.run(["train", "ae", "--data", str(pairs), "--images", "64", "--out", run,
                    "--set", "threads=1"]) == 0
    assert "ae learns from side A alone" in capsys.readouterr().err
    assert latlas.load(run).space == open_source(pairs).a.space
    assert isinstance(latlas.open_data(None, "test", like=run), Dataset)


def test_two_sources_on_the_command_line(pairs: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = str(pairs / "A"), str(pairs / "B")
    assert cli.run(["train", TWICE, "--data", a, "--data", b, "--images", "64", "--set",
                    "threads=1"]) == 0
    folder = next((tmp_path / "runs").iterdir())
    assert folder.name.endswith("-A-B") and latlas.load(folder).data == {
        "source": [a, b], "paired": False}
    capsys.readouterr()
    assert cli.run(["data", "info", a, b, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["aligned"] is False and result["b"]["shape"] == [3, 6, 8]
    assert cli.run(["data", "info", str(pairs)]) == 0
    assert "\nb\n" in capsys.readouterr().out
    assert cli.run(["train", "ae", *["--data", a] * 3]) == 2
    assert "--data: 3 sources; name one, or two" in capsys.readouterr().err
