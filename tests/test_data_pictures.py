"""Folders and zips of images, their modes, sizes, labels, splits and damage."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from latlas.core.errors import DataError
from latlas.data import info, open_source, split
from latlas.data.dataset import partition

rng = np.random.default_rng(0)


def pixels(height=6, width=6, channels=0, dtype=np.uint8):
    shape = (height, width, channels) if channels else (height, width)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def in_all(source):
    return split(source, "all")


@pytest.mark.parametrize(("ending", "channels"), [
    (".png", 0), (".png", 3), (".png", 4), (".tif", 0), (".tif", 3), (".tif", 4), (".bmp", 3)])
def test_modes_are_kept(tmp_path, ending, channels):
    saved = [save(tmp_path / f"{i}{ending}", pixels(5, 7, channels)) for i in range(4)]
    x = in_all(open_source(tmp_path)).x
    assert x.dtype == np.uint8 and x.shape == (4, channels or 1, 5, 7)
    np.testing.assert_array_equal(np.moveaxis(x, 1, -1).reshape(np.shape(saved)), saved)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, ending):
    saved = [save(tmp_path / f"{i}{ending}", pixels(dtype=np.uint16)) for i in range(4)]
    source = open_source(tmp_path)
    assert source.space.levels == 65536 and in_all(source).x.dtype == np.uint16
    np.testing.assert_array_equal(in_all(source).x[:, 0], saved)
    eight = in_all(open_source(tmp_path, mode="L")).x
    np.testing.assert_array_equal(eight[:, 0], np.array(saved) >> 8)
    small = in_all(open_source(tmp_path, image_size=3)).x
    assert small.dtype == np.uint16 and small.max() > 255


def test_mixed_modes_take_the_least_that_keeps_all(tmp_path):
    grey, colour = save(tmp_path / "a.png", pixels()), save(tmp_path / "b.png", pixels(6, 6, 3))
    x = in_all(open_source(tmp_path)).x
    np.testing.assert_array_equal(x[0], np.stack([grey] * 3))
    np.testing.assert_array_equal(x[1], colour.transpose(2, 0, 1))
    Image.fromarray(pixels()).convert("P").save(tmp_path / "c.png", transparency=0)
    assert open_source(tmp_path).space.shape == (4, 6, 6)
    Image.new("CMYK", (6, 6)).save(tmp_path / "d.tif")
    assert (in_all(open_source(tmp_path, mode="RGB")).x[3] == 255).all()


def test_one_bit_pictures_have_two_levels(tmp_path):
    ink = pixels() > 128
    save(tmp_path / "a.png", ink)
    source = open_source(tmp_path)
    assert source.space.levels == 2
    np.testing.assert_array_equal(in_all(source).x[0, 0], ink)


def test_transparency_is_laid_on_white(tmp_path):
    save(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8))
    assert (in_all(open_source(tmp_path, mode="RGB")).x == 255).all()
    assert (in_all(open_source(tmp_path)).x == 0).all()


def test_mixed_sizes(tmp_path):
    for i, (height, width) in enumerate([(10, 20), (8, 8), (30, 12), (8, 9), (9, 40)]):
        save(tmp_path / f"{i}.png", np.full((height, width), 40 * i, np.uint8))
    source = open_source(tmp_path)
    assert source.space.shape == (1, 9, 9)  # the median of 10, 8, 12, 8, 9
    assert "5 sizes: resized to 9x9" in source.notes[0]
    assert open_source(tmp_path, image_size=16).space.shape == (1, 16, 16)
    np.testing.assert_array_equal(in_all(source).x.mean((1, 2, 3)), [0, 40, 80, 120, 160])


def test_exif_orientation(tmp_path):
    wide = np.zeros((8, 16), np.uint8)
    wide[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: what was left comes on top
    save(tmp_path / "a.jpg", wide, exif=exif, quality=100)
    x = in_all(open_source(tmp_path)).x
    assert x.shape == (1, 1, 16, 8) and x[0, 0, :8].mean() > 250 and x[0, 0, 8:].mean() < 5


def test_a_large_jpeg_is_decoded_small(tmp_path):
    save(tmp_path / "a.jpg", np.full((400, 600, 3), 90, np.uint8))
    x = in_all(open_source(tmp_path, image_size=32, mode="RGB")).x
    assert x.shape == (1, 3, 32, 32) and abs(x.astype(int) - 90).max() <= 2


def test_folders_become_classes_and_splits(tmp_path):
    for i in range(12):
        part = "train" if i < 8 else "test"
        save(tmp_path / "outer" / part / ("cat" if i % 2 else "dog") / f"{i}.png", pixels())
    source = open_source(tmp_path)
    assert source.space.classes == ("cat", "dog")
    assert info(source)["splits"] == {"train": 7, "validation": 1, "test": 4}
    names = split(source, "test").take("names")
    labels = split(source, "test").take("label")
    assert [("cat", "dog")[c] for c in labels] == [n.split("/")[2] for n in names]
    assert open_source(tmp_path, label="none").space.classes == ()


def test_pictures_outside_folders_mean_no_labels(tmp_path):
    save(tmp_path / "a.png", pixels())
    save(tmp_path / "sub/b.png", pixels())
    source = open_source(tmp_path)
    assert source.space.classes == () and "no labels" in source.notes[0]


def test_a_zip_equals_its_folder(tmp_path):
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", pixels(6, 6, 4))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"top/{path.name}")
        archive.writestr("__MACOSX/._0.png", b"rubbish")
    np.testing.assert_array_equal(in_all(open_source(tmp_path / "p.zip")).x,
                                  in_all(open_source(tmp_path / "in")).x)


def test_equal_files_share_a_split_whatever_they_are_called(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i:02}.png", pixels())
    before = open_source(tmp_path)
    (tmp_path / "30.png").write_bytes((tmp_path / "03.png").read_bytes())
    (tmp_path / "07.png").rename(tmp_path / "z.png")
    after = open_source(tmp_path)
    assert after.base.key[29] == after.base.key[3] and len(np.unique(after.base.key)) == 30
    assert set(after.base.key) == set(before.base.key) and after.base.key[30] == before.base.key[7]
    split_of = {int(i): part for part, rows in partition(after).items() for i in rows}
    assert split_of[29] == split_of[3]


def broken(tmp_path, count=40):
    for i in range(count):
        save(tmp_path / f"{i:04}.png", pixels(16, 16, 3))
    path = tmp_path / "0007.png"
    path.write_bytes(path.read_bytes()[:300])
    return tmp_path


def test_a_truncated_picture_is_named_with_its_count(tmp_path):
    with pytest.raises(DataError, match=r"0007.png cannot be decoded: .*truncated.* \(1 of 40 "
                                        r"images\); on_error=skip leaves it out"):
        open_source(broken(tmp_path))


def test_skipping_leaves_out_only_the_broken(tmp_path):
    source = open_source(broken(tmp_path), on_error="skip")
    data = in_all(source)
    assert len(data) == 39 and "0007.png" not in data.take("names")
    assert source.notes[-1].startswith("left out 1 of 40 images: 0007.png")
    assert sum(info(source)["splits"].values()) == 39


def test_rubbish_is_no_picture(tmp_path):
    save(tmp_path / "a.png", pixels())
    (tmp_path / "b.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"b.png cannot be decoded: not an image"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"a.png cannot be decoded"):
        open_source(tmp_path, on_error="skip")


def celeba(tmp_path):
    lines = ["6", "Bald Smiling"]
    for i in range(6):
        save(tmp_path / "img" / f"{i}.jpg", pixels(8, 8, 3))
        lines.append(f"{i}.jpg   -1 {1 if i % 2 else -1}")
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("inner", ["img", "."])
def test_a_celeba_table(tmp_path, inner):
    source = open_source(celeba(tmp_path) / inner, label="Smiling")
    assert source.space.classes == ("not Smiling", "Smiling")
    assert source.base.label.tolist() == [0, 1] * 3
    assert source.space.factors == ("Bald",) and (source.base.factors == -1).all()
    with pytest.raises(DataError, match=r"did you mean 'Smiling'\? Valid: Bald, Smiling"):
        open_source(tmp_path, label="Smilling")


def test_celebas_own_splits(tmp_path):
    celeba(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("".join(
        f"{i}.jpg {c}\n" for i, c in enumerate([0, 0, 0, 1, 2, 2])))
    splits = info(open_source(tmp_path, label="Bald"))["splits"]
    assert splits == {"train": 3, "validation": 1, "test": 2}


def test_a_csv_table(tmp_path):
    for i in range(4):
        save(tmp_path / "in" / f"{i}.png", pixels())
    rows = "".join(f"{i}.png,{kind},{i}.5\n" for i, kind in enumerate("baba"))
    (tmp_path / "about.csv").write_text("file,kind,size\n" + rows)
    source = open_source(tmp_path / "in", label="kind", attributes=tmp_path / "about.csv")
    assert json.loads(json.dumps(source.spec)) == source.spec
    assert source.base.label.tolist() == [1, 0, 1, 0] and source.space.factors == ("size",)
    save(tmp_path / "in/9.png", pixels())
    with pytest.raises(DataError, match=r"no row for 1 of 5 images \(9.png\)"):
        open_source(tmp_path / "in", label="kind")


def test_bad_requests(tmp_path):
    (tmp_path / "notes.md").write_text("no images here")
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path)
    save(tmp_path / "a.png", pixels())
    for options, message in [
            ({"mode": "RGX"}, "unknown mode 'RGX': did you mean 'RGB'"),
            ({"on_error": "skp"}, "did you mean 'skip'"), ({"image_size": "big"}, "valid int"),
            ({"image_size": 0}, "not a size"), ({"imagesize": 3}, "did you mean 'image_size'"),
            ({"label": "x"}, "need an attribute table"), ({"levels": 3}, "largest pixel value")]:
        with pytest.raises(DataError, match=message):
            open_source(tmp_path, **options)
    with pytest.raises(DataError, match="not a kind of file"):
        open_source(tmp_path / "notes.md")


def test_a_damaged_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK rubbish")
    with pytest.raises(DataError, match="cannot be read as a zip"):
        open_source(tmp_path / "x.zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path / "x.zip")
