"""Files of data that are damaged, made to harm, or of another shape than they say: one line, and
neither more memory nor more time than their size deserves."""

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import struct
import tarfile
import time
import warnings
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.io import savemat

from latlas.core.errors import DataError, LatlasError
from latlas.data import dataset, info, open_source, pack, streams
from latlas.data.opening import open_pair

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABEL = (np.arange(20) % 3).astype(np.uint8)
TABLE = rng.standard_normal((20, 4))
MUTATIONS = 200
MOST_MEMORY = 500 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))


def written(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def npy(shape, dtype="|u1", data=b"", order=False):
    head = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def zipped(files, method=zipfile.ZIP_DEFLATED):
    def write(stream):
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    return written(write)


def tarred(files):
    def write(stream):
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return written(write)


def refused(spec, message, **options):
    """The line with which a source is refused, in a moment and with little memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message) as caught:
        open_source(spec, **options)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_MEMORY
    return str(caught.value)


# ------------------------------------------------------------------ mutations

def valid_files():
    records = rng.integers(0, 256, (2, 3073), dtype=np.uint8).tobytes()
    frame = pl.DataFrame({"a": TABLE[:, 0], "b": TABLE[:, 1], "c": ["x", "y"] * 10})
    npz = written(lambda s: np.savez_compressed(s, x=GREY, y=LABEL, group=LABEL))
    pngs = {f"a/{i}.png": written(lambda s, i=i: Image.fromarray(GREY[i]).save(s, "png"))
            for i in range(3)}
    return {
        "x.npy": written(lambda s: np.save(s, GREY)), "x.npz": npz,
        "x-idx3-ubyte.gz": gzip.compress(idx(GREY)), "x-idx3-ubyte": idx(GREY),
        "x.mat": written(lambda s: savemat(s, {"X": TABLE, "y": LABEL[:, None]})),
        "d.bin": records, "c.tar.gz": tarred({"c/data_batch_1.bin": records}),
        "t.csv": frame.write_csv().encode(), "t.parquet": written(frame.write_parquet),
        "p.zip": zipped(pngs), "n.zip": zipped({"a.npz": npz}, zipfile.ZIP_STORED)}


def mutated(data, seed):
    draws, data = np.random.default_rng([seed, 3]), bytearray(data)
    how = draws.integers(0, 5)
    if how == 0:
        return bytes(data[:draws.integers(0, len(data))])
    if how == 1:
        return bytes(data) + draws.bytes(int(draws.integers(1, 50)))
    for _ in range(draws.integers(1, 6)):
        i = int(draws.integers(0, min(len(data), 300) if how == 2 else len(data)))
        data[i] = int(draws.choice([0, 255, draws.integers(256), data[i] ^ 1 << draws.integers(8),
                                    ord("9"), ord("-")]))
    if how == 4:
        i = int(draws.integers(0, len(data)))
        data[i:i + int(draws.integers(0, 40))] = draws.bytes(int(draws.integers(0, 40)))
    return bytes(data)


def opens_or_is_refused(spec):
    try:
        info(open_source(spec))
    except LatlasError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", valid_files())
def test_a_mutated_file_opens_or_is_refused_in_one_line(tmp_path, name, capfd):
    path, data = tmp_path / name, valid_files()[name]
    path.write_bytes(data)
    open_source(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(6 if name.endswith(".mat") else MUTATIONS):  # a process each
        path.write_bytes(mutated(data, seed))
        opens_or_is_refused(path)
    assert not "".join(capfd.readouterr())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_MEMORY


def test_a_mutated_packed_folder_opens_or_is_refused_in_one_line(tmp_path):
    (tmp_path / "m.npz").write_bytes(valid_files()["x.npz"])
    pack(tmp_path / "m.npz", tmp_path / "p")
    for file in list((tmp_path / "p").iterdir()):
        data = file.read_bytes()
        for seed in range(MUTATIONS // 2):
            file.write_bytes(mutated(data, seed))
            opens_or_is_refused(tmp_path / "p")
        file.write_bytes(data)


# ------------------------------------------------------------------ places that are no files

@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.mat", "x.zip", "x.bin", "a.tar.gz",
                                  "x-idx3-ubyte"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, "is not a regular file")
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / name).symlink_to("/dev/zero")
    refused(tmp_path / "zero" / name, "is not a regular file")


def test_a_batch_that_no_memory_holds_is_refused():
    from latlas.data import split
    from latlas.data.batches import Batches

    with pytest.raises(DataError, match=r"batch_size=10000000000: a batch takes .* GB"):
        Batches(split(open_source("digits"), "train"), 10**10)


def test_a_pipe_beside_the_data_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(GREY))
    os.mkfifo(tmp_path / "train-labels-idx1-ubyte")
    refused(tmp_path, "is not a regular file")


@pytest.mark.parametrize("spec", ["x" * 300 + ".npy", "a\0b.npy", "~nobody-of-this-name/x.npy"])
def test_names_that_no_system_takes(spec):
    refused(spec, "cannot be read|no such file")


# ------------------------------------------------------------------ more than there is

@pytest.mark.parametrize("shape", [(10**9, 100), (2**62, 4), (1, 2 * 10**8), (10**30, 1)])
def test_a_header_that_claims_more_than_the_file(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(npy(shape, data=b"abc"))
    refused(tmp_path / "x.npy", "is truncated: its header claims")
    (tmp_path / "x.npz").write_bytes(zipped({"x.npy": npy(shape, data=b"abc")}))
    refused(tmp_path / "x.npz", "is truncated: its header claims")
    if max(shape) < 2**32:
        head = struct.pack(">HBBII", 0, 8, 2, *shape)
        (tmp_path / "x-idx2-ubyte.gz").write_bytes(gzip.compress(head))
        refused(tmp_path / "x-idx2-ubyte.gz", "is truncated: its header claims")


@pytest.mark.parametrize("head", [
    npy((-1, 4)), npy((-2, -3), data=b"123456"), npy((2, 3), "|O", b"123456"),
    npy((2, 3), "|V0"), npy("(2, 3", data=b"123456"), npy("'abc'"), npy((2, 3), "<f99"),
    b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00", npy("[" * 5000)])
def test_headers_that_are_none(tmp_path, head):
    (tmp_path / "x.npy").write_bytes(head)
    refused(tmp_path / "x.npy", "x.npy")


def test_labels_of_many_numbers_each_are_not_read(tmp_path):
    def write(stream):
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", written(lambda s: np.save(s, TABLE[:1])))
            with archive.open("y.npy", "w", force_zip64=True) as member:
                member.write(npy((1, 2 * 10**8)))
                for _ in range(20):
                    member.write(bytes(10**7))
    (tmp_path / "x.npz").write_bytes(written(write))
    assert "not one label per example" in open_source(tmp_path / "x.npz").notes[0]
    refused(tmp_path / "x.npz", "not one label per example", label="y")


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BOMB", 1 << 22)
    zeros, message = bytes(1 << 23), "unpacks to .* MB from .* unpack it and give the file itself"
    for name, data in (("n.zip", zipped({"a.csv": zeros})), ("t.csv.gz", gzip.compress(zeros)),
                       ("t.csv.bz2", bz2.compress(zeros)), ("t.jsonl.xz", lzma.compress(zeros)),
                       ("c.tar.gz", tarred({"data_batch_1.bin": zeros}))):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, message)


def test_what_is_more_than_the_free_memory_is_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "f.npy", np.asfortranarray(rng.standard_normal((100, 30))))
    savemat(tmp_path / "x.mat", {"X": np.ones((100, 30))})
    monkeypatch.setattr(dataset, "available_memory", lambda: 20_000)
    refused(tmp_path / "f.npy", "f.npy takes 24 kB of memory, and 20 kB are free")
    refused(tmp_path / "x.mat", "x.mat takes .* of memory, and 20 kB are free")
    for name in ("moons", "ring", "swiss-roll", "shapes"):
        refused(name, "n=1000.* of memory", n=1000)
    monkeypatch.undo()
    refused("moons", "of memory", n=10**12)


@pytest.mark.parametrize(("name", "options"), [
    ("moons", {"seed": -1}), ("moons", {"noise": float("nan")}), ("swiss-roll", {"noise": -1.0}),
    ("ring", {"n": 0}), ("shapes", {"seed": -1}), ("shapes", {"image_size": 10**9})])
def test_options_of_what_is_made_here(name, options):
    refused(name, "=".join(map(str, next(iter(options.items())))), **options)


# ------------------------------------------------------------------ damage

def test_a_wrong_checksum_or_more_bytes_than_the_header_says(tmp_path):
    packed = bytearray(gzip.compress(idx(GREY)))
    packed[-8] ^= 1
    for name, data, message in [
            ("crc-idx3-ubyte.gz", bytes(packed), "damaged: CRC"),
            ("tail-idx3-ubyte.gz", gzip.compress(idx(GREY)) + b"garbage", "damaged"),
            ("half-idx3-ubyte.gz", gzip.compress(idx(GREY[:10]) + GREY[10:].tobytes()),
             "goes on after the array"),
            ("half-idx3-ubyte", idx(GREY[:10]) + b"1", "goes on after the array"),
            ("half.npy", npy((2, 2), data=b"12345"), "goes on after the array"),
            ("half.npz", zipped({"x.npy": npy((2, 2), data=b"12345")}), "goes on after the array"),
            ("none-idx0-ubyte", struct.pack(">HBB", 0, 8, 0) + b"1", "is not an IDX file")]:
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, message)
    whole = bytearray(zipped({"x.npy": npy((2, 2), data=b"1234")}, zipfile.ZIP_STORED))
    whole[whole.index(b"1234")] ^= 1
    (tmp_path / "crc.npz").write_bytes(whole)
    refused(tmp_path / "crc.npz", "CRC")


def test_labels_are_as_many_as_examples(tmp_path):
    for name, labels in (("train", LABEL[:3]), ("train", LABEL[:0]), ("train", GREY)):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(GREY))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        refused(tmp_path, "ubyte has . values for 20 examples|ubyte holds .*, not one label")
        assert open_source(tmp_path, label="none").base.label is None
    for y in (LABEL[:2], np.concatenate([LABEL, LABEL])):
        np.savez(tmp_path / "x.npz", x=GREY, y=y)
        refused(tmp_path / "x.npz", f"y has {len(y)} values for 20 examples")
        savemat(tmp_path / "x.mat", {"X": TABLE, "y": y[:, None]})
        refused(tmp_path / "x.mat", f"y has {len(y)} values for 20 examples")
    np.savez(tmp_path / "x.npz", x_train=GREY[:15], y_train=LABEL[:10], x_test=GREY[15:],
             y_test=LABEL[10:])
    refused(tmp_path / "x.npz", "y_train has 10 values for 15 examples")


@pytest.mark.parametrize(("change", "message"), [
    ({"label": LABEL[:1].astype(np.int64)}, r"label holds int64 of shape \(1,\)"),
    ({"label": LABEL.astype(np.int64) + 9}, "label holds 9 … 11 for 3 classes"),
    ({"label": LABEL.astype(np.float64)}, "label holds float64"),
    ({"colour": LABEL}, "unknown array colour"),
    ({"rows_train": np.arange(30)}, "unknown array rows_train"),
    ({"factors": np.zeros((20, 2), np.float32)}, "factors holds"),
    ({"x": GREY[:5, None]}, "label holds|group holds"),
    ({"x": GREY[:, None, :3]}, r"x.npy holds uint8 of shape \(20, 1, 3, 5\)"),
    ({"x": np.full((20, 1, 6, 5), np.nan, np.float32)}, "x.npy holds float32"),
    ({"x": GREY[:0, None]}, "x.npy holds")])
def test_a_packed_folder_is_what_its_description_says(tmp_path, change, message):
    np.savez(tmp_path / "m.npz", x=GREY, y=LABEL, group=LABEL)
    pack(tmp_path / "m.npz", tmp_path / "p")
    with np.load(tmp_path / "p/arrays.npz") as archive:
        extras = {k: archive[k] for k in archive.files}
    if "x" in change:
        np.save(tmp_path / "p/x.npy", change["x"])
    else:
        np.savez(tmp_path / "p/arrays.npz", **{**extras, **change})
    refused(tmp_path / "p", f"is not a whole packed folder: .*(?:{message})")


def test_numbers_that_no_space_of_a_packed_folder_has(tmp_path):
    np.save(tmp_path / "table.npy", TABLE)
    np.save(tmp_path / "grey.npy", GREY // 16)
    np.save(tmp_path / "real.npy", GREY / 255)
    for name, value in (("table", np.inf), ("grey", 16), ("real", np.nan)):
        options = {"levels": 16} if name == "grey" else {}
        pack(tmp_path / f"{name}.npy", tmp_path / name, **options)
        x = np.load(tmp_path / name / "x.npy")
        x.reshape(-1)[7] = value
        np.save(tmp_path / name / "x.npy", x)
        refused(tmp_path / name, "not finite|holds 16, and meta.json says 16 levels")


@pytest.mark.parametrize("meta", ["[]", "1", '"x"', "null", "{}", '{"format": "1"}', "[" * 10**5,
                                  '{"format": -1}', '{"format": 0}', b"\xff\xfe", ""])
def test_a_description_of_another_shape(tmp_path, meta):
    np.save(tmp_path / "m.npy", GREY)
    pack(tmp_path / "m.npy", tmp_path / "p")
    (tmp_path / "p/meta.json").write_bytes(meta if isinstance(meta, bytes) else meta.encode())
    refused(tmp_path / "p", "is not a whole packed folder")


def test_fields_of_a_description_of_another_type(tmp_path):
    np.savez(tmp_path / "m.npz", x_train=GREY[:15], x_test=GREY[15:])
    pack(tmp_path / "m.npz", tmp_path / "p")
    meta = json.loads((tmp_path / "p/meta.json").read_text())
    for change in ({"name": 3}, {"space": []}, {"parts": ["train"] * 3}, {"parts": ["x"]},
                   {"parts": {"train": 1}}, {"space": {**meta["space"], "shape": [-1]}},
                   {"space": {**meta["space"], "levels": 1}}, {"notes": "x"},
                   {"space": {**meta["space"], "levels": -1}}):
        (tmp_path / "p/meta.json").write_text(json.dumps({**meta, **change}))
        refused(tmp_path / "p", "is not a whole packed folder")


def test_units_of_a_packed_folder(tmp_path):
    pack("moons", tmp_path / "p", n=50)
    meta = json.loads((tmp_path / "p/meta.json").read_text())
    for change in ({"scale": 0.0}, {"scale": [1.0]}, {"location": [0.0, 0.0, 1.0]},
                   {"scale": [1.0, -1.0]}):
        text = json.dumps({**meta, "space": {**meta["space"], **change}})
        (tmp_path / "p/meta.json").write_text(text)
        refused(tmp_path / "p", "is not a whole packed folder: meta.json has units")


def test_parts_of_several_types(tmp_path):
    np.savez(tmp_path / "i.npz", x_train=GREY, x_test=GREY.astype(np.uint16) + 300)
    np.testing.assert_array_equal(open_source(tmp_path / "i.npz").base.x[20:, 0],
                                  GREY.astype(np.uint16) + 300)
    np.savez(tmp_path / "i.npz", x_train=GREY, x_test=GREY / 255)
    refused(tmp_path / "i.npz", "x_test holds pixels of float64, but .*x_train of uint8")
    np.savez(tmp_path / "t.npz", x_train=np.ones((20, 4), np.uint8), x_test=TABLE)
    np.testing.assert_array_equal(open_source(tmp_path / "t.npz").base.x[20:], TABLE)


def test_a_packed_pair_is_of_its_own_sides(tmp_path):
    pair = open_pair(GREY[:10], GREY[10:], paired=True)
    pack(pair, tmp_path / "p")
    assert open_source(tmp_path / "p").space == pair.space
    np.save(tmp_path / "other.npy", GREY[:10, :3])
    pack(tmp_path / "other.npy", tmp_path / "o")
    for file in ("x.npy", "meta.json", "arrays.npz"):
        (tmp_path / "p/B" / file).write_bytes((tmp_path / "o" / file).read_bytes())
    refused(tmp_path / "p", "are not of the spaces in meta.json|is not a whole packed folder")


def test_encrypted_members_and_unknown_compression(tmp_path):
    data = bytearray(zipped({"a.npz": zipped({"x.npy": npy((2, 2), data=b"1234")})}))
    for flag, value in ((6, 1), (8, 99)):
        bad = bytearray(data)
        bad[flag] = value
        bad[bad.rindex(b"PK\x01\x02") + flag + 2] = value
        (tmp_path / "n.zip").write_bytes(bad)
        refused(tmp_path / "n.zip", "n.zip::a.npz cannot be read: ")


def test_a_damaged_table_of_attributes(tmp_path):
    for i in range(4):
        Image.fromarray(GREY[i]).save(tmp_path / f"{i}.png")
    rows = "4\nA B\n0.png 1 -1\n1.png -1 1\n2.png 1 1\n3.png -1 -1\n"
    for text in (rows[:-5], rows.replace("4\n", "x\n"), rows.replace("A B", ""), "", "\0\0", "4\n",
                 rows.replace("-1", "z"), "4", rows + "4.png", rows.replace("1.png", "0.png")):
        (tmp_path / "list_attr_celeba.txt").write_text(text)
        opens_or_is_refused(tmp_path)


def test_python_2_headers_and_extreme_numbers_raise_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "x.npy").write_bytes(npy("(2L, 3L)", data=b"123456"))
        assert open_source(tmp_path / "x.npy").base.x.shape == (2, 3)
        np.save(tmp_path / "y.npy", np.array([[1e200, 1.0], [-1e200, 2.0], [3e199, 3.0]]))
        columns = info(open_source(tmp_path / "y.npy"))["columns"]
        assert np.isfinite(columns[0]["sd"])
