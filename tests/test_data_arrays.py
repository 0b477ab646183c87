"""Arrays in memory, .npy, .npz, zip of .npz, IDX, CIFAR and SVHN files."""

import gzip
import io
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from latlas.core.errors import DataError
from latlas.data import info, open_source, split
from latlas.data.batches import Batches
from latlas.data.splits import hash_of

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (40, 6, 5), dtype=np.uint8)
DIGIT = (np.arange(40) % 10).astype(np.uint8)


def in_all(source):
    return split(source, "all")


def test_channels_are_put_first():
    colour = rng.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(in_all(open_source(colour)).x, colour.transpose(0, 3, 1, 2))
    first = colour.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(in_all(open_source(first)).x, first)
    forced = open_source(np.zeros((9, 3, 3, 3), np.uint8), layout="NHWC")
    assert forced.space.shape == (3, 3, 3)


def test_pairs_of_items_and_labels():
    source = open_source((GREY, [["a"], ["b"]] * 20))
    assert source.spec is None and source.space.classes == ("a", "b")
    assert in_all(source).label.tolist() == [0, 1] * 20
    assert open_source((GREY, np.eye(4)[DIGIT % 4])).space.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(("array", "levels", "dtype"), [
    (GREY, 256, np.uint8), (GREY > 100, 2, np.uint8), (GREY.astype(np.int64), 256, np.uint8),
    (GREY.astype(np.float64), 256, np.uint8), (GREY.astype(np.uint16) * 9, 65536, np.uint16),
    (GREY.astype(np.int32) * 9, 65536, np.uint16), (GREY // 200, 2, np.uint8)])
def test_levels_follow_from_the_type(array, levels, dtype):
    source = open_source(array)
    assert source.space.levels == levels and in_all(source).x.dtype == dtype
    np.testing.assert_array_equal(in_all(source).x[:, 0], array)


def test_levels_can_be_said():
    assert open_source(GREY // 16, levels=16).space.levels == 16
    with pytest.raises(DataError, match="levels=16, but the largest pixel value is"):
        open_source(GREY, levels=16)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-2.0, 6.0)])
def test_real_pictures_keep_their_range(low, high):
    x = np.linspace(low, high, 40 * 30, dtype=np.float32).reshape(40, 6, 5)
    space = open_source(x).space
    assert space.levels is None and in_all(open_source(x)).x.dtype == np.float32
    np.testing.assert_allclose(space.to_model(np.array([low, high])), [-1, 1], atol=1e-6)


def test_tables_and_shapes():
    x = rng.standard_normal((30, 6))
    assert open_source(x).space.columns == ("x0", "x1", "x2", "x3", "x4", "x5")
    flat = open_source(GREY.reshape(40, 30), shape="1x6x5")
    np.testing.assert_array_equal(in_all(flat).x[:, 0], GREY)
    with pytest.raises(DataError, match="shape=1x6x6 has 36 numbers"):
        open_source(GREY.reshape(40, 30), shape="1x6x6")


def test_resize_is_shorter_side_then_centre():
    from PIL import Image

    x = rng.integers(0, 256, (2, 8, 16), dtype=np.uint8)
    small = in_all(open_source(x, image_size=4)).x
    whole = [Image.fromarray(p.astype(np.float32)).resize((8, 4), Image.Resampling.LANCZOS)
             for p in x]
    expected = np.clip(np.rint(np.stack([np.asarray(p) for p in whole])), 0, 255)
    np.testing.assert_array_equal(small[:, 0], expected[:, :, 2:6])


def test_npz_with_train_and_test(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", x_train=GREY[:30], y_train=DIGIT[:30],
                        x_test=GREY[30:], y_test=DIGIT[30:])
    source = open_source(tmp_path / "m.npz")
    test = split(source, "test")
    np.testing.assert_array_equal(test.take("x")[:, 0], GREY[30:])
    np.testing.assert_array_equal(test.take("label"), DIGIT[30:])
    assert source.name == "m" and source.space.classes == tuple("0123456789")
    assert info(source)["splits"] == {"train": 28, "validation": 2, "test": 10}
    again = open_source(source.spec)
    np.testing.assert_array_equal(in_all(again).x, in_all(source).x)


def test_npz_labels_follow_the_parts_whatever_the_order_of_the_keys(tmp_path):
    parts = {"train": slice(0, 24), "validation": slice(24, 30), "test": slice(30, 40)}
    arrays = {f"{key}_{part}": array[rows] for part, rows in reversed(parts.items())
              for key, array in (("y", DIGIT), ("x", GREY), ("group", np.arange(40)),
                                 ("factors", np.arange(40)[:, None]))}
    np.savez(tmp_path / "m.npz", **arrays)
    source = open_source(tmp_path / "m.npz")
    for part, rows in parts.items():
        data = split(source, part)
        np.testing.assert_array_equal(data.take("x")[:, 0], GREY[rows])
        np.testing.assert_array_equal(data.take("label"), DIGIT[rows])
        groups = [hash_of(str(i)) for i in np.arange(40)[rows]]
        np.testing.assert_array_equal(data.take("group").view(np.uint64), groups)
        np.testing.assert_array_equal(data.take("factors")[:, 0], np.arange(40)[rows])


def test_every_frame_of_clips_whose_parts_differ_in_length_is_in_a_part(tmp_path):
    clips = [rng.integers(0, 256, (n, t, 8, 8, 3), dtype=np.uint8) for n, t in ((6, 4), (3, 5))]
    np.savez(tmp_path / "c.npz", x_train=clips[0], x_test=clips[1])
    source = open_source(tmp_path / "c.npz")
    frames = clips[1].reshape(15, 8, 8, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(split(source, "test").take("x"), frames)


@pytest.mark.parametrize("key", ["x_val", "x_valid", "validation_x", "X_Val"])
def test_npz_validation_by_any_of_its_names(tmp_path, key):
    label = key.replace("x", "y").replace("X", "y")
    np.savez(tmp_path / "m.npz", **{"x_train": GREY[:24], "y_train": DIGIT[:24],
                                    key: GREY[24:30], label: DIGIT[24:30],
                                    "x_test": GREY[30:], "y_test": DIGIT[30:]})
    source = open_source(tmp_path / "m.npz")
    assert info(source)["splits"] == {"train": 24, "validation": 6, "test": 10}
    held_out = split(source, "validation")
    np.testing.assert_array_equal(held_out.take("x")[:, 0], GREY[24:30])
    np.testing.assert_array_equal(held_out.take("label"), DIGIT[24:30])


def test_a_digit_enters_few_files_on_its_way_from_an_npz_to_a_batch(tmp_path):
    np.savez(tmp_path / "m.npz", x_train=GREY[:30], y_train=DIGIT[:30], x_test=GREY[30:],
             y_test=DIGIT[30:])
    entered = set()

    def note(frame, event, _):
        name = Path(frame.f_code.co_filename)
        if event == "call" and frame.f_code.co_name != "<module>" and name.parent.name == "data":
            entered.add(name.stem)

    sys.setprofile(note)
    try:
        batch = Batches(split(open_source(tmp_path / "m.npz"), "train"), 8).at(0)
    finally:
        sys.setprofile(None)
    assert batch.x.shape == (8, 1, 6, 5)
    assert entered == {"opening", "arrays", "streams", "dataset", "splits", "batches"}


@pytest.mark.parametrize("keys", [("X", "y"), ("images", "labels"), ("imgs", "target"),
                                  ("images", "class")])
def test_npz_keys(tmp_path, keys):
    np.savez(tmp_path / "k.npz", **{keys[0]: GREY, keys[1]: DIGIT})
    source = open_source(str(tmp_path / "k.npz"))
    assert len(source.space.classes) == 10 and len(in_all(source)) == 40
    assert open_source(str(tmp_path / "k.npz"), label="none").space.classes == ()


def test_npz_choices(tmp_path):
    np.savez(tmp_path / "k.npz", a=GREY, b=GREY[::-1], writer=DIGIT % 3, group=DIGIT,
             value=rng.standard_normal(40))
    path = tmp_path / "k.npz"
    source = open_source(path, key="b", label="writer")
    np.testing.assert_array_equal(in_all(source).x[:, 0], GREY[::-1])
    assert source.space.classes == ("0", "1", "2") and info(source)["groups"] == 10
    for options, message in [({}, "choose the examples with key="), ({"key": "c"}, "Valid: a, b"),
                             ({"key": "a", "label": "writr"}, "did you mean 'writer'"),
                             ({"key": "a", "label": "value"}, "not classes")]:
        with pytest.raises(DataError, match=message):
            open_source(path, **options)


def test_real_valued_y_is_left_out_with_a_note(tmp_path):
    np.savez(tmp_path / "r.npz", X=rng.standard_normal((20, 3)), y=rng.standard_normal(20))
    source = open_source(tmp_path / "r.npz")
    assert in_all(source).label is None and "left out" in source.notes[0]


def test_packed_bits(tmp_path):
    ink = rng.random((20, 7, 13)) < 0.3
    np.savez(tmp_path / "bits.npz", x=np.packbits(ink, axis=-1), shape=np.array(ink.shape),
             alphabet=DIGIT[:20] % 2, names=np.array(["Greek", "Latin"]))
    source = open_source(tmp_path / "bits.npz", label="alphabet")
    np.testing.assert_array_equal(in_all(source).x[:, 0], ink)
    assert source.space.levels == 2 and source.space.classes == ("Greek", "Latin")
    assert open_source(tmp_path / "bits.npz", image_size=5).space.levels == 256


def test_column_order_and_npy(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(GREY))
    np.testing.assert_array_equal(in_all(open_source(tmp_path / "f.npy")).x[:, 0], GREY)


def test_a_member_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        for name in ("1_wine", "2_glass"):
            buffer = io.BytesIO()
            np.savez(buffer, X=rng.standard_normal((30, 4)), y=DIGIT[:30] % 2)
            archive.writestr(f"{name}.npz", buffer.getvalue())
    path = f"{tmp_path}/sets.zip"
    source = open_source(f"{path}::2_glass")
    assert source.space.kind == "table" and source.space.classes == ("0", "1")
    assert open_source(source.spec).space == source.space
    with pytest.raises(DataError, match=r"holds 2 data sets; name one, as in sets.zip::1_wine"):
        open_source(path)
    with pytest.raises(DataError, match=r"did you mean '2_glass.npz'"):
        open_source(f"{path}::2_glas")


def idx(array, code=8):
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + array.tobytes()


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_folder_and_file(tmp_path, ending):
    pack = gzip.compress if ending else bytes
    for part, rows in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        (tmp_path / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx(GREY[rows])))
        (tmp_path / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(DIGIT[rows])))
    source = open_source(tmp_path)
    np.testing.assert_array_equal(split(source, "test").take("x")[:, 0], GREY[30:])
    np.testing.assert_array_equal(in_all(source).label, DIGIT)
    single = open_source(tmp_path / f"t10k-images-idx3-ubyte{ending}")
    assert len(in_all(single)) == 10 and len(single.space.classes) == 10


def test_damaged_idx(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(GREY)[:-5])
    with pytest.raises(DataError, match="truncated"):
        open_source(path)
    path.write_bytes(b"hello world, not idx")
    with pytest.raises(DataError, match="is not an IDX file"):
        open_source(path)


def test_big_endian_floats_in_idx(tmp_path):
    x = rng.random((8, 4, 4))
    (tmp_path / "x-idx3-ubyte").write_bytes(idx(x.astype(">f4"), 13))
    np.testing.assert_allclose(in_all(open_source(tmp_path / "x-idx3-ubyte")).x[:, 0], x, rtol=1e-6)


def records(n, heads, seed):
    draws = np.random.default_rng(seed)
    x = draws.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    y = draws.integers(0, 5, (n, heads), dtype=np.uint8)
    return x, y, np.concatenate([y, x.reshape(n, -1)], axis=1).tobytes()


def test_cifar10(tmp_path):
    files = {f"data_batch_{i}.bin": records(4, 1, i) for i in (1, 2)}
    files["test_batch.bin"] = records(3, 1, 9)
    for name, (_, _, data) in files.items():
        (tmp_path / name).write_bytes(data)
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    source = open_source(tmp_path)
    np.testing.assert_array_equal(in_all(source).x, np.concatenate([m[0] for m in files.values()]))
    label = split(source, "test").take("label")
    np.testing.assert_array_equal(label, files["test_batch.bin"][1][:, 0])
    assert source.space.classes == tuple(names)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data_batch_1.bin", "cifar/data_batch_1.bin")
    np.testing.assert_array_equal(in_all(open_source(tmp_path / "c.tar.gz")).x,
                                  files["data_batch_1.bin"][0])


def test_cifar100_and_damage(tmp_path):
    x, y, data = records(5, 2, 0)
    (tmp_path / "train.bin").write_bytes(data)
    np.testing.assert_array_equal(in_all(open_source(tmp_path)).x, x)
    for column, label in ((1, None), (0, "coarse")):
        source = open_source(tmp_path, label=label)
        result = [int(source.space.classes[c]) for c in in_all(source).label]
        assert result == y[:, column].tolist()
    (tmp_path / "train.bin").write_bytes(data[:-1])
    with pytest.raises(DataError, match="may be truncated"):
        open_source(tmp_path)


def test_svhn(tmp_path):
    from scipy.io import savemat

    x = rng.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    y = np.array([10, 1, 2, 3] * 3, np.uint8)[:, None]
    savemat(tmp_path / "train_32x32.mat", {"X": x[..., :8], "y": y[:8]})
    savemat(tmp_path / "test_32x32.mat", {"X": x[..., 8:], "y": y[8:]})
    source = open_source(tmp_path)
    np.testing.assert_array_equal(in_all(source).x, x.transpose(3, 2, 0, 1))
    assert source.space.classes == ("0", "1", "2", "3") and in_all(source).label[0] == 0
    assert len(in_all(open_source(tmp_path / "test_32x32.mat"))) == 4
    savemat(tmp_path / "other.mat", {"Z": x})
    with pytest.raises(DataError, match=r"other.mat holds Z; choose the examples with key="):
        open_source(tmp_path / "other.mat")


@pytest.mark.parametrize(("content", "message"), [
    (b"not a zip", "cannot be read as .npz"), (b"", "cannot be read as .npz")])
def test_damaged_npz(tmp_path, content, message):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "bad.npz")


def test_truncated_npy_and_objects(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated"):
        open_source(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(DataError, match="never loaded"):
        open_source(tmp_path / "o.npy")


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros(5), "wanted numbers of shape"), (np.zeros((0, 4, 4), np.uint8), "is empty"),
    (np.array([["a", "b"]]), "wanted numbers"), (np.full((3, 2), np.inf), "infinite"),
    (np.full((3, 4, 4), np.nan), "not finite")])
def test_arrays_that_do_not_fit(array, message):
    with pytest.raises(DataError, match=message):
        open_source(array)


def test_missing_paths(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(tmp_path / "gone.npz")
    with pytest.raises(DataError, match="empty folder"):
        open_source(tmp_path)
    (tmp_path / "x.docx").write_text("hello")
    with pytest.raises(DataError, match="not a kind of file"):
        open_source(tmp_path / "x.docx")
