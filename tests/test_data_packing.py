"""Packed folders: equal to what they were packed from, automatic when memory is short."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.core.errors import DataError
from latlas.data import dataset as stores
from latlas.data import info, open_source, pack, split
from latlas.data.batches import Batches

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, x_train=rng.integers(0, 256, (30, 5, 5), dtype=np.uint8),
             y_train=np.arange(30) % 3, x_test=rng.integers(0, 256, (10, 5, 5), dtype=np.uint8),
             y_test=np.arange(10) % 3)
    return path


def same(one, other):
    for which in ("train", "validation", "test", "all"):
        a, b = split(one, which), split(other, which)
        for name in ("x", "label", "factors", "group", "names"):
            np.testing.assert_array_equal(a.take(name), b.take(name))
        assert a.space == b.space


@pytest.mark.parametrize("spec", ["digits", "moons", "shapes", "archive"])
def test_packed_equals_its_source(tmp_path, archive, spec):
    options = {} if spec in ("digits", "archive") else {"n": 60}
    spec = archive if spec == "archive" else spec
    calls = []
    packed = pack(spec, tmp_path / "p", progress=lambda i, n: calls.append((i, n)), **options)
    original = open_source(spec, **options)
    same(packed, original)
    assert isinstance(packed.base.x, np.memmap) and info(packed)["stored"] == "memory map"
    assert calls[-1] == (len(original.base), len(original.base))
    assert packed.spec == {"source": str(tmp_path / "p")}
    same(open_source(packed.spec), original)


def test_pictures_with_a_hole(tmp_path):
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"rubbish")
    packed = pack(tmp_path, tmp_path / "p", on_error="skip")
    assert len(split(packed, "all")) == 19
    with pytest.raises(DataError, match=r"3.png cannot be decoded"):
        pack(tmp_path, tmp_path / "q")
    assert not (tmp_path / "q").exists() and not list(tmp_path.glob(".q*"))


def test_torch_takes_the_map_without_copying_and_cannot_change_the_file(tmp_path, archive):
    packed = pack(archive, tmp_path / "p")
    before = (tmp_path / "p/x.npy").read_bytes()
    tensor = torch.from_numpy(packed.base.x)
    assert tensor.data_ptr() == packed.base.x.ctypes.data
    tensor.zero_()
    assert (tmp_path / "p/x.npy").read_bytes() == before
    batch = Batches(split(open_source(tmp_path / "p"), "train"), 8).at(0)
    assert batch.x.shape == (8, 1, 5, 5)


def test_large_sources_are_packed_once(archive, cache, monkeypatch):
    monkeypatch.setattr(stores, "available_memory", lambda: 1500)
    first = open_source(archive)  # 1,000 bytes are more than half of 1,500
    assert isinstance(first.base.x, np.memmap) and first.spec == {"source": str(archive)}
    written = next(cache.glob("*/x.npy")).stat().st_mtime_ns
    second = open_source(archive)
    assert next(cache.glob("*/x.npy")).stat().st_mtime_ns == written
    monkeypatch.setattr(stores, "available_memory", lambda: 10**9)
    np.savez(archive, x=rng.integers(0, 256, (8, 5, 5), dtype=np.uint8))
    assert len(open_source(archive).base) == 8  # a changed file is read anew
    same(first, second)


def test_small_sources_leave_no_trace(archive, cache):
    open_source(archive)
    assert not cache.exists()


def test_share_is_an_option(archive):
    assert isinstance(open_source(archive, memory_share=1e-12).base.x, np.memmap)


def test_bad_folders(tmp_path, archive):
    pack(archive, tmp_path / "p")
    with pytest.raises(DataError, match="is there already"):
        pack(archive, tmp_path / "p")
    meta = json.loads((tmp_path / "p/meta.json").read_text())
    (tmp_path / "p/meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(DataError, match=r"newer latlas \(format 99\)"):
        open_source(tmp_path / "p")
    (tmp_path / "p/meta.json").write_text(json.dumps({**meta, "colour": 1}))
    with pytest.raises(DataError, match=r"not a whole packed folder: .*unknown field `colour`"):
        open_source(tmp_path / "p")
    (tmp_path / "p/meta.json").write_text("{")
    with pytest.raises(DataError, match="not a whole packed folder"):
        open_source(tmp_path / "p")


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, archive, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores.os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot write .* \(No space left on device\)"):
        pack(archive, tmp_path / "p")
    assert not (tmp_path / "p").exists() and not list(tmp_path.glob(".p*"))


def test_available_memory_is_plausible():
    assert 1 << 20 < stores.available_memory() < 1 << 50
