"""Images that people have: formats, layouts, sizes and modes, read right or refused in one line."""

import io
import json
import shutil
import sys
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import latlas
from latlas.core.errors import DataError, DataNote
from latlas.core.space import Images
from latlas.data import open_source, split
from latlas.data.fitting import open_examples
from latlas.data.images import decode, full_mode, read_header

rng = np.random.default_rng(0)
Image.init()
FORMATS = ["AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO",
           "MSP", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM"]
MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB",
         "HSV", "I", "I;16", "I;16B"]


def in_mode(mode: str) -> Image.Image:
    """Noise of 8 by 12 pixels, which is not square and has no symmetry."""
    height, width = 8, 12
    if mode in ("I", "I;16"):
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(
            np.int32 if mode == "I" else np.uint16))
    if mode in ("I;16B", "LAB"):
        return Image.frombytes(mode, (width, height), rng.bytes(width * height * len(
            "ab" if mode == "I;16B" else mode)))
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    return image.convert({"PA": "RGBA", "La": "LA"}.get(mode, "RGBA")).convert(mode)


def written(form: str, mode: str, orientation: int | None) -> bytes | None:
    """A file, ``None`` where Pillow cannot write it, or not read it."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation or 1
    try:
        in_mode(mode).save(file, form, **({"exif": exif} if orientation else {}))
        Image.open(file).load()
    except Exception:
        return None
    return file.getvalue()


@pytest.mark.parametrize("form", [f for f in FORMATS if f in Image.SAVE])
def test_size_and_pixels_are_those_of_pillow_in_any_orientation(form):
    count = 0
    for mode in MODES:
        for orientation in (None, *range(1, 9)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = written(form, mode, orientation)
            if data is None:
                continue
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                upright, full = ImageOps.exif_transpose(image), full_mode(image)
            header = read_header(data)
            assert header[:3] == (*upright.size, full), (mode, orientation)
            x, again = decode(data, full, None)
            assert again[:3] == header[:3]
            upright = upright if full in ("I;16", "1") else upright.convert(full)
            np.testing.assert_array_equal(
                x.astype(int), np.atleast_3d(np.asarray(upright)).transpose(2, 0, 1).astype(int))
            count += 1
    assert count


@pytest.mark.parametrize("place", ["last", "xmp"])
def test_a_png_says_its_orientation_anywhere(tmp_path, place):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    in_mode("L").save(file, "PNG")
    data = file.getvalue()
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    if place == "xmp":
        kind, raw = b"iTXt", (b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>')
    else:
        kind = b"eXIf"
    chunk = len(raw).to_bytes(4, "big") + kind + raw + zlib.crc32(
        kind + raw).to_bytes(4, "big")
    data = data[:-12] + chunk + data[-12:]
    assert read_header(data)[:2] == (8, 12) and decode(data, "L", None)[0].shape == (1, 12, 8)


def test_floats_and_whole_numbers_beyond_16_bits_are_refused(tmp_path):
    for name, array, words in (("f", rng.random((4, 4)).astype(np.float32), "floating-point"),
                               ("i", np.full((4, 4), 70_000, np.int32), "from 70000 to 70000"),
                               ("n", np.full((4, 4), -1, np.int32), "from -1 to -1")):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "a.tif")
        with pytest.raises(DataError, match=f"a.tif cannot be decoded: .*{words}"):
            open_source(tmp_path / name)


# ------------------------------------------------------------------------------ files and folders

def noise(path, height=6, width=6, channels=3, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, channels) if channels > 1 else (height, width)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path, **options)
    return path


def names(source):
    return split(source, "all").take("names").tolist()


def test_links_to_folders_are_followed(tmp_path):
    for kind in ("cat", "dog"):
        noise(tmp_path / "store" / kind / "a.png")
    data = tmp_path / "data"
    data.mkdir()
    for kind in ("cat", "dog"):
        (data / kind).symlink_to(tmp_path / "store" / kind)
    (data / "cat/loop").symlink_to(data)
    (data / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(data)
    assert names(source) == ["cat/a.png", "dog/a.png"] and source.space.classes == ("cat", "dog")
    assert source.notes == ("left out 1 file: 1 links to nothing, or no files",)


@pytest.mark.parametrize(("ending", "form"), [(".jfif", "JPEG"), (".JPE", "JPEG"), (".qoi", "QOI"),
                                              (".avif", "AVIF"), (".j2k", "JPEG2000")])
def test_endings(tmp_path, ending, form):
    noise(tmp_path / f"a{ending}", format=form)
    assert len(open_source(tmp_path).base) == len(open_source(tmp_path / f"a{ending}").base) == 1


def test_further_frames_are_told(tmp_path):
    frames = [in_mode("L") for _ in range(3)]
    for name in ("a.gif", "b.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    noise(tmp_path / "c.png")
    source = open_source(tmp_path, image_size=4)
    note = "2 files of several frames, of which the first was read: a.gif; frames=true reads all"
    assert note in source.notes


def test_a_zip_of_a_table_made_on_windows(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("in\\t.csv", "a,b\n1,2\n3,4\n")
    assert len(open_source(tmp_path / "w.zip").base) == 2


def test_a_tar_without_images(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path / "a.tar")


def test_digits_take_images_of_256_levels(tmp_path):
    noise(tmp_path / "a.png", 30, 20, 3)
    got = open_examples(Trained(open_source("digits").space, {"source": "digits"}), tmp_path)
    assert got.x.shape == (1, 1, 8, 8) and got.x.max() <= 16 and got.space.levels == 17
    assert len(got.notes) == 2 and "256 levels were brought to 17 levels" in got.notes[1]


def test_heif_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(DataError, match=r"a.heic cannot be decoded: HEIF needs pillow-heif \(pip "
                                        r"install 'latlas\[heif\]'\)"):
        open_source(tmp_path)


def test_a_zip_made_on_windows(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for part in ("train", "test"):
            for kind in ("cat", "dog"):
                archive.write(noise(tmp_path / "x.png"), f"all\\{part}\\{kind}\\a.png")
    source = open_source(tmp_path / "w.zip")
    assert source.space.classes == ("cat", "dog") and set(source.parts) == {"train", "test"}


def test_what_is_left_out_is_counted(tmp_path):
    for name in ("a.png", ".hidden.png", "._a.png"):
        noise(tmp_path / name)
    for name in ("a.txt", "b.txt", "c.json", "README", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    assert open_source(tmp_path).notes == (
        "left out 5 files: 1 .json, 2 .txt, 1 hidden, 1 without an ending",)


@pytest.mark.parametrize("outer", ["", "outer/"])
def test_a_stray_file_does_not_void_the_splits(tmp_path, outer):
    for part in ("train", "test"):
        for i in range(3):
            noise(tmp_path / outer / part / f"cat/{i}.png")
    noise(tmp_path / "logo.png")
    source = open_source(tmp_path)
    assert {k: len(v) for k, v in source.parts.items()} == {"train": 3, "test": 3}
    assert source.notes == ("left out 1 file: 1 beside the folders of splits, logo.png",)


@pytest.mark.parametrize("folders", [("trainA", "trainB"), ("A", "B"), ("x/trainA", "x/trainB")])
def test_a_stray_file_does_not_void_the_sides(tmp_path, folders):
    for folder in folders:
        for i in range(3):
            noise(tmp_path / folder / f"{i}.png")
    noise(tmp_path / "logo.png")
    source = open_source(tmp_path)
    assert len(source.a.base) == len(source.b.base) == 3
    assert [n for n in source.notes if "beside" in n] == [
        f"{source.a.name}: left out 1 file: 1 beside the folders of sides, logo.png"]
    assert len(open_source(tmp_path, pair="none").base) == 7


def test_classes_named_a_b_c_are_no_sides(tmp_path):
    for kind in "ABC":
        noise(tmp_path / kind / "0.png")
    assert open_source(tmp_path).space.classes == ("A", "B", "C")


def test_a_folder_with_the_name_of_a_built_in_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(tmp_path / "shapes/a.png")
    assert open_source("shapes", n=10).notes == (
        "shapes is the built-in source; what lies here under that name is ./shapes",)
    assert len(open_source("./shapes").base) == 1


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_folder_of_one_archive_is_that_archive(tmp_path, name):
    for kind in ("cat", "dog"):
        noise(tmp_path / "in" / kind / "0.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.DS_Store").write_text("x")
    shutil.make_archive(str(tmp_path / "out/a"), "zip" if name == "a.zip" else "gztar",
                        tmp_path / "in")
    source = open_source(tmp_path / "out")
    np.testing.assert_array_equal(source.base.x, open_source(tmp_path / "in").base.x)
    assert source.space.classes == ("cat", "dog")
    assert source.notes == (f"{tmp_path / 'out'} holds {name} alone, which was opened",)
    assert open_source(source.spec).notes == source.notes
    both = latlas.data.open_pair(tmp_path / "out", tmp_path / "in", paired=True)
    np.testing.assert_array_equal(both.a.base.x, both.b.base.x)
    shutil.copy(tmp_path / "out" / name, tmp_path / "out" / f"b{name}")
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path / "out")


def test_a_folder_of_one_zip_of_a_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", "a,b\n1,2\n3,4\n")
    source = open_source(tmp_path)
    assert len(source.base) == 2
    assert source.notes[0] == f"{tmp_path} holds t.zip alone, which was opened"


@pytest.mark.parametrize("folders", [("images", "masks"), ("train/Images", "train/labels"),
                                     ("set/inputs", "set/targets"), ("img/test", "mask/test")])
def test_images_and_masks_of_equal_names_are_pairs(tmp_path, folders):
    for folder, channels in zip(folders, (3, 1), strict=True):
        for i in range(3):
            noise(tmp_path / folder / f"{i}.png", channels=channels)
    source = open_source(tmp_path)
    assert source.aligned and (source.a.space.shape[0], source.b.space.shape[0]) == (3, 1)
    assert source.a.space.classes == () and names(source.a) == names(source.b)
    assert any("are taken for the sides A and B of pairs; pair=none takes them for one side" in n
               for n in source.notes)
    assert len(open_source(tmp_path, pair="none").base) == 6
    noise(tmp_path / folders[1] / "more.png")
    with pytest.raises(DataError, match=r"1 only in B .*pair=none: one side"):
        open_source(tmp_path)


def test_images_among_other_folders_are_a_class(tmp_path):
    for kind in ("images", "masks", "rest"):
        noise(tmp_path / kind / "0.png")
    assert open_source(tmp_path).space.classes == ("images", "masks", "rest")


def test_several_broken_files_are_counted_and_the_first_three_named(tmp_path):
    for i in range(6):
        noise(tmp_path / f"{i}.png")
    words = []
    for i in (1, 3, 4, 5):
        (tmp_path / f"{i}.png").write_bytes(b"rubbish")
        words.append(f"{i}.png cannot be decoded: not an image, or damaged at its head")
    first = "; ".join(words[:3])
    with pytest.raises(DataError) as error:
        open_source(tmp_path)
    assert str(error.value) == (f"{tmp_path}: {first}; ... (4 of 6 images); on_error=skip leaves "
                                "them out")
    assert open_source(tmp_path, on_error="skip").notes == (
        f"left out 4 of 6 images: {first}; ...",)
    for i in (0, 2):
        (tmp_path / f"{i}.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"\(6 of 6 images\)$"):
        open_source(tmp_path, on_error="skip")


# ------------------------------------------------------------------------------ foreign layouts

def style_gan(folder, labels):
    for i in range(6):
        noise(folder / f"0000{i // 3}/img{i:08}.png")
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_style_gans_layout(tmp_path):
    listed = [[f"0000{i // 3}/img{i:08}.png", i % 2] for i in range(6)]
    for name, labels in (("given", listed), ("none", None),
                         ("hot", [[n, [1 - k, k]] for n, k in listed])):
        style_gan(tmp_path / name, labels)
    source = open_source(tmp_path / "given")
    assert source.space.classes == ("0", "1") and source.notes == ()
    assert split(source, "all").take("label").tolist() == [0, 1] * 3
    assert split(open_source(tmp_path / "hot"), "all").take("label").tolist() == [0, 1] * 3
    assert open_source(tmp_path / "none").space.classes == ()
    assert open_source(tmp_path / "given", label="none").space.classes == ()
    style_gan(tmp_path / "few", listed[1:])
    with pytest.raises(DataError, match=r"dataset.json has no label for 1 of 6 images"):
        open_source(tmp_path / "few")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in sorted((tmp_path / "given").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "given"))
    assert open_source(tmp_path / "s.zip").space.classes == ("0", "1")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_tar_equals_its_folder(tmp_path, ending):
    for kind in ("cat", "dog"):
        noise(tmp_path / "in" / kind / "a.png")
    form = {"tar": "", "tgz": "gz"}.get(ending, ending[4:])
    path = tmp_path / f"a.{ending}"
    with tarfile.open(path, f"w:{form}") as archive:
        archive.add(tmp_path / "in", ".")
    source = open_source(path)
    assert source.space.classes == ("cat", "dog")
    np.testing.assert_array_equal(source.base.x, open_source(tmp_path / "in").base.x)
    path.write_bytes(path.read_bytes()[:-40 if form else 600])
    if form:
        with pytest.raises(DataError, match="cannot be read"):
            open_source(path)


def test_a_foreign_meta_json(tmp_path):
    noise(tmp_path / "a.png")
    for text in ('{"made": "by others"}', "[1]", "{"):
        (tmp_path / "meta.json").write_text(text)
        assert open_source(tmp_path).notes == ("left out 1 file: 1 .json",)


def test_more_than_a_thousand_classes(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        data = noise(tmp_path / "x.png", 2, 2).read_bytes()
        for i in range(1001):
            for j in range(2):
                archive.writestr(f"{i:04}/{j}.png", data)
    assert len(open_source(tmp_path / "many.zip").space.classes) == 1001
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        for i in range(1001):
            archive.writestr(f"{i:04}/0.png", data)
    source = open_source(tmp_path / "one.zip")
    assert source.space.classes == () and "1,001 sub-folders hold 1,001" in source.notes[0]


# ------------------------------------------------------------------------------ large

def test_a_large_image_is_read_and_said(tmp_path):
    Image.new("1", (14_000, 14_000), 1).save(tmp_path / "a.png")
    source = open_source(tmp_path, image_size=8)
    assert source.notes == ("1 image of 14000x14000 was resized to 8x8", "1 image of more than "
                            "89,478,485 pixels: a.png (14000x14000)")
    assert (source.base.x == 255).all() and Image.MAX_IMAGE_PIXELS == 89_478_485


def test_an_image_larger_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("latlas.data.images.available_memory", lambda: 4000)
    noise(tmp_path / "a.png", 100, 100)
    with pytest.raises(DataError, match="100x100 pixels take 4e-05 GB of memory"):
        open_source(tmp_path)


# ------------------------------------------------------------------------------ images for a run

@dataclass
class Trained:
    """What images are brought to: the space of a run and how its data were read."""

    space: Any
    data: dict[str, Any] | None = None
    conditional: bool = False


def of(shape, levels=256, **options):
    return Trained(Images(shape, levels, **options))


@pytest.mark.parametrize("form", ["file", "list", "folder", "zip", "tar"])
def test_images_of_another_size_and_mode(tmp_path, form):
    count = 1 if form == "file" else 3
    paths = [noise(tmp_path / f"in/{i}.png", 480, 640, 4) for i in range(count)]
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    data = {"file": paths[0], "list": paths[::-1], "folder": tmp_path / "in",
            "zip": tmp_path / "p.zip", "tar": tmp_path / "p.tar"}[form]
    with pytest.warns(DataNote) as said:
        got = open_examples(of((3, 32, 32)), data)
    n = len(paths)
    note = f"{n} image{'s' * (n > 1)} of 640x480 RGBA {'were' if n > 1 else 'was'} resized to " \
           "32x32 and converted to RGB"
    assert got.notes == (note,) and [str(w.message) for w in said] == [note]
    want = open_source(tmp_path / "in", image_size=32, mode="RGB").base.x
    np.testing.assert_array_equal(got.x, want[::-1] if form == "list" else want)
    assert got.space == Images((3, 32, 32))


def test_a_form_that_is_no_square_is_kept(tmp_path):
    noise(tmp_path / "a.png", 40, 100, 3)
    got = open_examples(of((1, 10, 20)), tmp_path)
    with Image.open(tmp_path / "a.png") as image:
        want = image.convert("L").resize((20, 10), Image.Resampling.LANCZOS, box=(10, 0, 90, 40))
    np.testing.assert_array_equal(got.x[0, 0], np.asarray(want))


def test_each_side_has_its_own_mode(tmp_path):
    for side in "AB":
        noise(tmp_path / side / "0.png", 12, 12, 4)
    run = Trained(latlas.core.space.PairSpace(Images((1, 6, 6)), Images((3, 6, 6)), True),
                  {"source": str(tmp_path)})
    for side, first, second in (("A", 1, 3), ("B", 3, 1)):
        both = open_examples(run, tmp_path, "all", side=side)
        assert (both.a.space.shape[0], both.b.space.shape[0]) == (first, second)
        assert open_examples(run, tmp_path / "A/0.png", side=side).space.shape[0] == first


@pytest.mark.parametrize(("levels", "expected"), [(256, [0, 255]), (2, [0, 1]), (17, [0, 16]),
                                                  (65536, [0, 65535])])
@pytest.mark.parametrize("depth", ["1", "L", "I;16"])
def test_a_mask_keeps_black_and_white_at_any_depth(tmp_path, levels, expected, depth):
    white = {"1": True, "L": np.uint8(255), "I;16": np.uint16(65535)}[depth]
    Image.fromarray(np.tri(4, 4) > 0 if depth == "1" else np.tri(4, 4).astype(
        type(white)) * white).save(tmp_path / "m.png")
    got = open_examples(of((1, 4, 4), levels), tmp_path / "m.png")
    np.testing.assert_array_equal(got.x[0, 0], np.array(expected)[np.tri(4, 4).astype(int)])
    assert got.space.levels == levels
    assert bool(got.notes) == ((depth, levels) not in (("1", 2), ("L", 256), ("I;16", 65536)))


@pytest.mark.parametrize("old", [2, 17, 256, 65536])
def test_a_source_of_other_levels_is_brought_by_its_range(old):
    x = np.linspace(0, old - 1, 16).round().astype(np.uint16 if old > 256 else np.uint8)
    source = open_source(x.reshape(1, 4, 4), levels=old)
    for new in (2, 17, 256, 65536):
        got = open_examples(of((1, 4, 4), new), source)
        assert (int(got.x.min()), int(got.x.max())) == (0, new - 1)
        error = np.abs(got.x.ravel() / (new - 1) - x / (old - 1)).max()
        assert error <= 0.5 / (new - 1) + 1 / 255
        assert bool(got.notes) == (old != new)
    real = open_examples(Trained(Images((1, 4, 4), None, value_range=(-3.0, 5.0))), source)
    assert (real.x.min(), real.x.max()) == (-3, 5)


def test_one_bit_images_of_more_levels(tmp_path):
    Image.fromarray(np.tri(4, 4) > 0).save(tmp_path / "m.png")
    assert open_source(tmp_path, levels=256).base.x.max() == 255


def test_arrays_beyond_the_range_are_refused():
    run = of((1, 2, 2))
    for array in (np.full((1, 2, 2), 256), np.full((1, 2, 2), -1.0), np.full((1, 2, 2), 300.0)):
        with pytest.raises(DataError, match=r"whole numbers .* the run's pixels are 0 … 255"):
            open_examples(run, array)
    assert open_examples(run, np.array([[[True, False]] * 2])).x.max() == 255


def test_labels_that_a_run_does_not_know(tmp_path):
    for kind in ("bird", "fish"):
        noise(tmp_path / kind / "0.png")
    run = of((3, 6, 6), classes=("cat", "dog"))
    got = open_examples(run, tmp_path)
    assert got.label is None and got.space.classes == ("cat", "dog")
    assert got.notes == ("labels are left out: the run knows no class 'bird' and the like",)
    run.conditional = True
    with pytest.raises(DataError, match="unknown class 'bird'"):
        open_examples(run, tmp_path)


def sheets(folder, height=8, width=16, n=4):
    for i in range(n):
        noise(folder / f"{i}.png", height, width)
    return folder


def test_the_reading_of_halves_is_kept(tmp_path):
    own, other = sheets(tmp_path / "own"), sheets(tmp_path / "other", 16, 32)
    plain = sheets(tmp_path / "plain", 8, 8)
    spec = {"pair": "side", "image_size": 4}
    run = Trained(open_source(own, **spec).space, {"source": str(own), **spec})
    for folder in (own, other):
        got = open_examples(run, folder, "all")
        assert len(got.a) == len(got.b) == 4
        want = open_source(folder, **spec)
        np.testing.assert_array_equal(got.a.x, want.a.base.x)
        np.testing.assert_array_equal(got.b.x, want.b.base.x)
    assert open_examples(run, plain, "all").space.shape == (3, 4, 4)
    assert open_examples(run, own / "0.png").aligned


def test_options_that_apply_are_kept(tmp_path):
    for kind in ("cat", "dog"):
        noise(tmp_path / kind / "0.png")
    (tmp_path / "cat/1.png").write_bytes(b"rubbish")
    run = Trained(Images((3, 6, 6)), {"source": "gone", "on_error": "skip", "label": "none"})
    got = open_examples(run, tmp_path)
    assert len(got) == 2 and got.label is None and "left out 1 of 3 images" in got.notes[0]


# ------------------------------------------------------------------------------ verbs

SHORT = {"images": 32, "batch_size": 8, "threads": 1, "progress": False}


def test_verbs_take_files_of_any_size(tmp_path):
    sheets(tmp_path / "train", 8, 8, 40)
    run = latlas.train("vae", str(tmp_path / "train"), out=tmp_path / "run", latent_dim=2, **SHORT)
    mine = [noise(tmp_path / f"mine/{i}.png", 20, 30, 4) for i in range(3)]
    for data, n in ((mine[0], 1), (mine[:2], 2), (mine, 3), (tmp_path / "mine", 3)):
        assert latlas.reconstruct(run, data).values.shape == (n, 3, 8, 8)
        assert len(latlas.encode(run, data).values) == len(latlas.score(run, data).nats) == n
        assert len(latlas.project(run, data, steps=1, starts=1).error) == n
    assert latlas.interpolate(run, data=mine[:2], steps=3).values.shape[0] == 3


@pytest.mark.parametrize("n", [2, 3])
def test_few_examples_are_enough_for_evaluate_and_report(tmp_path, n):
    sheets(tmp_path / "few", 8, 8, n)
    run = latlas.train("vae", str(tmp_path / "few"), out=tmp_path / "run", latent_dim=2, **SHORT)
    assert any("at least 6 examples" in note for note in latlas.evaluate(run).notes)
    latlas.report(run).save(tmp_path / "r.html")


def test_pca_of_few_examples_chooses_what_fits(tmp_path):
    sheets(tmp_path / "few", 8, 8, 12)
    run = latlas.train("pca", str(tmp_path / "few"), out=tmp_path / "run", progress=False)
    n = len(split(open_source(tmp_path / "few"), "train"))
    assert run.model.latent_dim == n - 2
    with pytest.raises(DataError, match="latent_dim=9 needs at least 11 training examples"):
        latlas.train("pca", str(tmp_path / "few"), latent_dim=9, progress=False)


def test_what_is_converted_for_the_sake_of_others_is_said(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((8, 8), 900 * i, np.uint16)).save(tmp_path / f"deep{i}.png")
    assert not open_source(tmp_path).notes
    Image.new("L", (8, 8), 7).save(tmp_path / "grey.png")
    assert "1 image of 8-bit grey was converted to 16-bit grey" in open_source(tmp_path).notes
    Image.new("RGB", (8, 8)).save(tmp_path / "colour.png")
    notes = open_source(tmp_path).notes
    assert any("4 images of" in n and n.endswith("were converted to RGB") for n in notes)
    Image.new("RGBA", (8, 8)).save(tmp_path / "cut.png")
    assert any("read with transparency; mode=RGB leaves it out" in note
               for note in open_source(tmp_path).notes)
    assert open_source(tmp_path, mode="RGB").space.shape == (3, 8, 8)
    for options in ({"mode": "RGB"}, {"mode": "RGBA"}):
        notes = open_source(tmp_path, **options).notes
        assert not any("transparency" in note for note in notes)


def test_another_kind_of_files_than_the_run_learnt(tmp_path):
    from scipy.io import wavfile

    for i in range(12):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (i, 3 * i, 7)).save(tmp_path / f"p/{i}.png")
    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, np.int16))
    photos = {"source": str(tmp_path / "p"), "image_size": 8}
    latlas.train("pca", photos, out=tmp_path / "run", latent_dim=2)
    with pytest.raises(DataError, match=r"a\.wav holds no images as the run was trained on$"):
        latlas.encode(tmp_path / "run", str(tmp_path / "a.wav"))
    with pytest.raises(DataError, match="unknown option 'n_fft'"):
        open_examples(latlas.load(tmp_path / "run"), tmp_path / "p", n_fft=3)
