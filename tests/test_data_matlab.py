"""Keys of an npz that are needed or not; MATLAB files of tables and images."""

import io
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from latlas.core.errors import DataError
from latlas.data import open_source

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABEL = (np.arange(20) % 3).astype(np.uint8)
TABLE = rng.standard_normal((20, 4))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))


def refused(spec, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        open_source(spec, **options)
    assert "\n" not in str(caught.value)


def test_only_the_keys_of_an_npz_that_are_needed_are_opened(tmp_path):
    words = np.array([f"w{i}" for i in range(20)], object)
    np.savez(tmp_path / "o.npz", x=TABLE, y=words, meta=np.array({"a": 1}, object),
             names=np.array(["a", 1], object))
    path = tmp_path / "o.npz"
    source = open_source(path, label="none")
    assert len(source.base) == 20 and source.base.label is None
    assert source.notes == ("not used: meta, names",)
    noted = open_source(path)
    assert noted.base.label is None and "o.npz: y holds Python objects" in noted.notes[0]
    refused(path, r"o.npz: y holds Python objects, which are never loaded", label="y")
    refused(path, r"o.npz: meta holds Python objects", key="meta")
    np.savez(tmp_path / "d.npz", x=TABLE)
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
        archive.writestr("other.npy", b"rubbish")
        archive.writestr("readme.txt", b"hello")
    assert open_source(tmp_path / "d.npz").notes == ("not used: other",)


def test_a_table_of_matlab(tmp_path):
    savemat(tmp_path / "cardio.mat", {"X": TABLE, "y": (LABEL == 1).astype(np.float64)[:, None],
                                      "about": "words", "parts": {"a": 1}})
    source = open_source(tmp_path / "cardio.mat")
    assert source.name == "cardio" and source.space.kind == "table"
    np.testing.assert_array_equal(source.base.x, TABLE)
    assert source.space.classes == ("0", "1")
    assert source.base.label.tolist() == (LABEL == 1).astype(int).tolist()
    assert source.notes == ("not used: about, parts",)
    assert open_source(source.spec).base.label.tolist() == source.base.label.tolist()
    unlabelled = open_source(tmp_path / "cardio.mat", label="none")
    assert unlabelled.base.label is None and unlabelled.space.classes == ()


def test_choices_in_a_matlab_file(tmp_path):
    kinds = np.empty((20, 1), object)
    kinds[:, 0] = [f"kind {i % 2}" for i in range(20)]
    path = tmp_path / "m.mat"
    savemat(path, {"A": TABLE, "B": TABLE.T[:3], "kind": kinds, "y": rng.standard_normal(20),
                   "s": {"a": 1}})
    refused(path, "holds A, B, kind, y, s; choose .* key=")
    refused(path, "unknown key 'C'", key="C")
    refused(path, "m.mat: s holds Python objects", key="s")
    refused(path, "unknown label 'x'", key="A", label="x")
    refused(path, "holds real or missing numbers", key="A", label="y")
    source = open_source(path, key="A", label="kind")
    assert source.space.classes == ("kind 0", "kind 1")
    source = open_source(path, key="B", label="kind")  # (d, n)
    np.testing.assert_array_equal(source.base.x, TABLE[:, :3])
    assert "the columns of B are the examples" in source.notes[0]
    assert "left out" in open_source(path, key="A").notes[0]


def test_options_that_do_not_fit_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", x=GREY, factors=np.arange(3))
    path = tmp_path / "x.npz"
    refused(path, "factors has 3 values for 20 examples$")
    refused(f"{path}::x", "choose.* key=x")
    np.savez(path, x=GREY)
    refused(path, "image_size=0: give at least 1", image_size=0)
    refused(path, "image_size=-3: give at least 1", image_size=-3)
    refused(path, "levels=1000000000, .* give 25[0-9] … 65536", levels=10**9)
    savemat(tmp_path / "h.mat", {"X": TABLE, "y": np.eye(3)[LABEL]})
    assert open_source(tmp_path / "h.mat").base.label.tolist() == LABEL.tolist()
    savemat(tmp_path / "c.mat", {"X": TABLE + 1j})
    refused(tmp_path / "c.mat", "holds no arrays of numbers, but X")


def test_images_of_matlab(tmp_path):
    x = rng.integers(0, 256, (7, 6, 3, 4), dtype=np.uint8)
    savemat(tmp_path / "i.mat", {"X": x, "y": np.arange(4)[:, None]}, do_compression=True)
    np.testing.assert_array_equal(open_source(tmp_path / "i.mat").base.x, x.transpose(3, 2, 0, 1))
    savemat(tmp_path / "g.mat", {"images": x[:, :, 0], "labels": np.arange(4)})
    np.testing.assert_array_equal(open_source(tmp_path / "g.mat").base.x[:, 0],
                                  x[:, :, 0].transpose(2, 0, 1))
    savemat(tmp_path / "d.mat", {"X": x, "y": np.arange(2)[:, None]})
    refused(tmp_path / "d.mat", "y has 2 values for 4 examples")


def test_words_for_labels_and_files_that_are_no_matlab(tmp_path):
    savemat(tmp_path / "w.mat", {"X": TABLE, "y": np.array(["on", "off"] * 10)})
    assert open_source(tmp_path / "w.mat").space.classes == ("off", "on")
    for content, message in [
            (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n", r"save\('FILE"),
            (b"\x89HDF\r\n\x1a\n" + bytes(600), "version 7.3"), (b"", "cannot be read as .mat"),
            (b"hello", "cannot be read as .mat"), (bytes(1000), "x.mat")]:
        (tmp_path / "x.mat").write_bytes(content)
        refused(tmp_path / "x.mat", message)


def test_a_file_on_which_scipy_follows_a_null_pointer(tmp_path):
    """SciPy 1.17.1 does on these two bytes; other versions may raise an error."""
    cells = np.empty((2, 1), object)
    cells[:] = [["ab"], ["cd"]]
    stream = io.BytesIO()
    savemat(stream, {"X": np.ones((5, 2)), "y": cells, "s": {"a": 1, "b": "x"}, "t": "hello"})
    data = bytearray(stream.getvalue())
    data[301], data[601] = 164, 1
    (tmp_path / "x.mat").write_bytes(data)
    refused(tmp_path / "x.mat", "cannot be read as .mat: ")


def test_a_matlab_file_that_brings_its_reader_down_or_never_ends(tmp_path, monkeypatch):
    from latlas.data import formats

    savemat(tmp_path / "x.mat", {"X": TABLE})
    script = tmp_path / "mat_to_npz.py"
    monkeypatch.setattr(formats, "SCRIPT", script)
    script.write_text("import os; os.abort()")
    refused(tmp_path / "x.mat", r"cannot be read as .mat: reading it fails \(status -6\)")
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(formats, "SECONDS", 0.2)
    refused(tmp_path / "x.mat", "no end after 0 s")
