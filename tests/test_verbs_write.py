"""Files by suffix: what is written is read back by other libraries."""

from __future__ import annotations

import resource

import numpy as np
import polars
import pytest
from PIL import Image

from latlas.core.errors import ConfigError, RunError
from latlas.core.space import Images, Points, Table
from latlas.render.imaging import grid
from latlas.verbs import write


def images(n=5, channels=1, levels=256, side=4):
    shape = (channels, side, side + 1)
    x = np.random.default_rng(0).integers(0, levels, size=(n, *shape))
    kind = np.uint8 if levels <= 256 else np.uint16
    return x.astype(kind), Images(shape, levels)


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_a_grid_shows_every_pixel_of_every_example(tmp_path):
    x, space = images(5)
    said = write.write_examples(tmp_path / "g.png", x, space)
    image = np.asarray(opened(tmp_path / "g.png").convert("L"))
    times, gap = 13, 3  # 5 pixels wide, so 13 times to 64
    cell_h, cell_w = 4 * times + gap, 5 * times + gap
    assert image.shape == (2 * cell_h + gap, 3 * cell_w + gap)
    for i in range(5):
        top, left = gap + i // 3 * cell_h, gap + i % 3 * cell_w
        tile = image[top:top + 4 * times:times, left:left + 5 * times:times]
        np.testing.assert_array_equal(tile, x[i, 0])
    assert "5 examples" in said


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (2, "RGB"), (3, "RGB"), (4, "RGB"),
                                                (6, "RGB")])
def test_grids_of_any_number_of_channels(tmp_path, channels, mode):
    x, space = images(3, channels)
    said = write.write_examples(tmp_path / "g.png", x, space, columns=3)
    assert opened(tmp_path / "g.png").mode == mode
    assert ("first three of 6 channels" in said) == (channels == 6)


def test_transparent_pixels_show_the_checkerboard(tmp_path):
    x = np.zeros((1, 4, 8, 8), np.uint8)
    write.write_examples(tmp_path / "g.png", x, Images((4, 8, 8)))
    assert {216, 255} == set(np.unique(np.asarray(opened(tmp_path / "g.png"))))


def test_levels_are_stretched_to_bytes(tmp_path):
    x, space = images(1, levels=17)
    write.write_examples(tmp_path / "out/", x, space)
    pixels = np.asarray(opened(tmp_path / "out" / "00000.png"))
    np.testing.assert_array_equal(pixels, np.rint(x[0, 0] * (255 / 16)))


def test_a_folder_holds_one_picture_per_example_under_its_name(tmp_path):
    x, space = images(3, 3)
    names = np.array(["a/cat.jpg", "../dog.png", "../dog.png"])
    write.write_examples(f"{tmp_path}/out/", x, space, names)
    files = sorted(p.relative_to(tmp_path / "out").as_posix()
                   for p in (tmp_path / "out").rglob("*.png"))
    assert files == ["%2E%2E/dog%~2.png", "%2E%2E/dog.png", "a/cat.jpg.png"]
    image = opened(tmp_path / "out" / "a/cat.jpg.png")
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image), -1, 0), x[0])
    write.write_examples(tmp_path / "out", x[:1], space, ["new.png"])  # beside what is there
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_sixteen_bits_stay_sixteen_in_a_folder(tmp_path):
    x, space = images(1, levels=65536)
    write.write_examples(tmp_path / "out", x, space)
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "out" / "00000.png")), x[0, 0])


def test_an_animation_plays_there_and_back(tmp_path):
    x, space = images(4)
    write.write_examples(tmp_path / "w.gif", x, space)
    with Image.open(tmp_path / "w.gif") as film:
        assert film.n_frames == 6 and film.info["loop"] == 0
        assert film.size == (5 * 26, 4 * 26)


def test_numbers_come_back_exactly(tmp_path):
    x, space = images(3)
    write.write_examples(tmp_path / "x.npy", x, space)
    write.write_examples(tmp_path / "x.npz", x, space, ["p", "q", "r"])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)
    with np.load(tmp_path / "x.npz") as held_out:
        np.testing.assert_array_equal(held_out["x"], x)
        assert held_out["name"].tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_keep_their_columns(tmp_path, suffix):
    space = Table.of_numbers(("height", "weight"))
    x = np.array([[1.5, 2], [3, 4]], np.float32)
    write.write_examples(tmp_path / f"t.{suffix}", x, space)
    read = {"csv": polars.read_csv, "parquet": polars.read_parquet}[suffix]
    frame = read(tmp_path / f"t.{suffix}")
    assert frame.columns == ["height", "weight"]
    np.testing.assert_array_equal(frame.to_numpy(), x)


def test_latents_and_tables_by_name(tmp_path):
    write.write_latents(tmp_path / "z.csv", np.array([[1.0, 2], [3, 4]]), ["p", "q"])
    frame = polars.read_csv(tmp_path / "z.csv")
    assert frame.columns == ["name", "z0", "z1"] and frame["name"].to_list() == ["p", "q"]
    write.write_table(tmp_path / "s.parquet", {"example": [0, 1], "odd": [True, False]})
    assert polars.read_parquet(tmp_path / "s.parquet")["odd"].to_list() == [True, False]


@pytest.mark.parametrize("columns", [2, 6])
def test_points_become_a_plot(tmp_path, columns):
    x = np.random.default_rng(0).normal(size=(40, columns)).astype(np.float32)
    said = write.write_examples(tmp_path / "p.png", x, Points((columns,)))
    image = opened(tmp_path / "p.png")
    assert image.mode == "RGB" and min(image.size) > 300
    assert np.asarray(image).std() > 1
    assert ("of 6" in said) == (columns == 6)


@pytest.mark.parametrize("name", ["x.jpeg2", "x.docx"])
def test_other_suffixes_name_the_valid_ones(tmp_path, name):
    x, space = images(1)
    with pytest.raises(ConfigError, match=r"\.png, \.gif, \.csv, .* or a folder"):
        write.write_examples(tmp_path / name, x, space)


def test_tables_have_no_animation_and_no_folder(tmp_path):
    x, space = np.zeros((2, 2), np.float32), Table.of_numbers(2)
    for name in ("x.gif", "folder"):
        with pytest.raises(ConfigError, match="table"):
            write.write_examples(tmp_path / name, x, space)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "old.csv"
    target.write_text("kept")
    with pytest.raises(RunError, match="what was there before is intact"), \
            write.whole(target) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "kept" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npz", "t.npy", "t.png", "out/"])
def test_a_full_disk_is_one_line(tmp_path, name):
    x, space = images(40, side=16)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))  # no file grows beyond 100 bytes
    try:
        with pytest.raises(RunError, match=f"cannot save .*{name.strip('/')}.*intact"):
            write.write_examples(f"{tmp_path}/{name}", x, space)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", range(1, 60, 7))
def test_grids_are_near_square(n):
    rows, columns = np.array(grid(np.zeros((n, 1, 64, 64), np.uint8), gap=0).shape[:2]) // 64
    assert 0 <= columns - rows <= 1 and columns * (rows - 1) < n <= columns * rows


def test_times_of_day_are_written_as_people_write_them(tmp_path):
    import datetime

    import polars as pl

    times = [datetime.time(18, 31, 36), datetime.time(4, 5, 6, 500_000)]
    write.write_table(tmp_path / "t.csv", {"at": pl.Series(times)})
    assert (tmp_path / "t.csv").read_text().split() == ["at", "18:31:36", "04:05:06.500"]
