"""Clips as sources, the temporal term of cycle-gan, and clips translated in their own form."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.core import motion
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Step
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data import info, open_pair, open_source, pack, split
from latlas.data.batches import Batches
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.metrics.paired import flicker, motions
from latlas.models import cycle_gan
from latlas.models.cycle_gan import GROWING, TEMPORAL
from latlas.render.films import write_film
from latlas.verbs.evaluate import evaluated
from latlas.verbs.translating import clips_of

TIMES = [50, 60, 70, 80]


def pixels(n=4, shape=(12, 16, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def film(path, x=None, **more):
    """A lossless film of (t, H, W[, 3])."""
    x = pixels() if x is None else x
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(frame) for frame in x]
    first.save(path, save_all=True, append_images=rest, loop=0,
               **{"duration": TIMES[:len(x)], "lossless": True} | more)
    return path


def stills(folder, n=3, size=(12, 16), names="{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full(size, i, np.uint8)).save(folder / names.format(i))
    return folder


# ------------------------------------------------------------------------------ sources

def test_a_folder_of_frame_folders_is_clips_in_natural_order(tmp_path):
    stills(tmp_path / "clip10", 2)
    stills(tmp_path / "clip9", 12)
    data = open_source(str(tmp_path), frames=True, rate=25).base
    assert data.x.shape == (14, 1, 12, 16) and data.space.frames
    assert data.x[:, 0, 0, 0].tolist() == [*range(12), 0, 1]  # 9 before 10
    assert data.names[10:13].tolist() == ["clip9/10.png", "clip9/11.png", "clip10/0.png"]
    assert data.clip.tolist() == [0] * 12 + [1] * 2
    assert [len(set(g)) for g in (data.group[:12], data.group[12:], data.group)] == [1, 1, 2]
    assert data.duration.tolist() == [40] * 14 and data.label is None
    assert data.neighbours.tolist() == [*range(1, 12), 10, 13, 12]


@pytest.mark.parametrize("ending", ["gif", "png", "apng", "webp"])
def test_a_film_is_a_clip_with_the_time_of_every_frame(tmp_path, ending):
    path = film(tmp_path / f"a.{ending}", **({"format": "PNG"} if ending == "apng" else {}))
    for opened in (open_source(str(path)), open_source(str(tmp_path), frames=True)):
        data = opened.base
        np.testing.assert_array_equal(data.x.transpose(0, 2, 3, 1), pixels())
        assert data.duration.tolist() == TIMES and data.clip.tolist() == [0] * 4
        assert data.names[3] == f"a.{ending}/00003" and data.space.frames
    assert open_source(str(path)).spec["source"] == str(path)


def test_films_have_the_channels_that_are_seen(tmp_path):
    grey = film(tmp_path / "grey.gif", pixels(shape=(12, 16)))
    np.testing.assert_array_equal(open_source(str(grey)).base.x[:, 0], pixels(shape=(12, 16)))
    assert open_source(str(film(tmp_path / "one/c.gif"))).space.shape[0] == 3


def test_clips_of_arrays():
    x = pixels(20).reshape(5, 4, 12, 16, 3)
    data = open_source(x).base  # five axes can be nothing else
    np.testing.assert_array_equal(data.x[7], x[1, 3].transpose(2, 0, 1))
    assert data.clip.tolist() == np.arange(5).repeat(4).tolist() and data.names[7] == "00001/00003"
    data = open_source((x[..., 0], np.array([0, 1, 0, 1, 1])), frames=True).base
    assert data.x.shape == (20, 1, 12, 16) and data.label.tolist() == [0] * 4 + [1] * 4 + [
        0] * 4 + [1] * 8
    with pytest.raises(DataError, match=r"frames=true wants \(n, t, H, W\)"):
        open_source(x[:, 0, :, :, 0], frames=True)


def test_an_npz_of_clips_and_of_two_domains(tmp_path):
    x = pixels(20).reshape(5, 4, 12, 16, 3)
    np.savez(tmp_path / "x.npz", x_train=x[:3], x_test=x[3:], y_train=[0, 1, 0], y_test=[1, 1])
    source = open_source(str(tmp_path / "x.npz"))
    test = split(source, "test")
    assert test.take("label").tolist() == [1] * 8
    assert test.take("clip").tolist() == [3] * 4 + [4] * 4
    np.savez(tmp_path / "two.npz", A=x[..., 0], B=x)
    two = open_source(str(tmp_path / "two.npz"), frames="true", paired=False)
    assert two.a.base.x.shape == (20, 1, 12, 16) and two.b.base.x.shape == (20, 3, 12, 16)
    assert two.space.a.frames and two.space.b.frames


def test_two_domains_of_clips_stay_whole_in_every_split(tmp_path):
    for side, n in (("A", 10), ("B", 8)):
        for c in range(n):
            film(tmp_path / f"train{side}/c{c}.gif", pixels(3, seed=c))
    source = open_source(str(tmp_path), frames=True)
    assert source.aligned is False and source.b.base.names[0] == "train/c0.gif/00000"
    for which in ("train", "validation", "test"):
        part = split(source, which)
        for side in (part.a, part.b):
            assert all(n == 3 for n in np.unique(side.take("clip"), return_counts=True)[1])
    one = open_pair(str(tmp_path / "trainA"), str(tmp_path / "trainB"), frames=True)
    assert one.spec["frames"] is True and open_source(one.spec).b.space == one.b.space
    assert info(one)["a"]["clips"] == 10 and info(one)["a"]["milliseconds"] == pytest.approx(60)


def test_folders_around_clips_are_parts_and_classes(tmp_path):
    for part in ("train", "test"):
        for kind in ("runs", "walks"):
            film(tmp_path / part / kind / "a.gif")
            stills(tmp_path / part / kind / "b")
    source = open_source(str(tmp_path), frames=True, mode="RGB")
    assert source.space.classes == ("runs", "walks") and set(source.parts) == {"train", "test"}
    assert split(source, "test").take("label").tolist() == [0] * 7 + [1] * 7
    assert len(split(open_source(str(tmp_path / "train/runs"), frames=True, mode="RGB"),
                     "all")) == 7


@pytest.mark.parametrize("around", ["", "train/"])
def test_a_clips_own_folder_is_no_class(tmp_path, around):
    """Nor is the folder of a part; as some clips have no class, none has."""
    for c in range(3):
        stills(tmp_path / f"{around}c{c}", 2)
        stills(tmp_path / f"test/t{c}", 2)
    film(tmp_path / f"{around}whole.gif", pixels(2, (12, 16)))
    source = open_source(str(tmp_path), frames=True)
    assert set(source.parts) == ({"train", "test"} if around else {"all"})
    assert source.base.label is None and source.space.classes == ()
    assert source.base.clip.max() == 6


def test_packed_clips_are_clips(tmp_path):
    film(tmp_path / "in/a.gif")
    film(tmp_path / "in/b.gif")
    packed = pack(str(tmp_path / "in"), tmp_path / "out", frames=True).base
    assert packed.space.frames and packed.duration.tolist() == TIMES * 2
    assert packed.clip.tolist() == [0] * 4 + [1] * 4


def test_what_is_no_clip_is_said(tmp_path):
    def said(words, spec, **options):
        with pytest.raises(DataError, match=words):
            open_source(str(spec), **options)

    (tmp_path / "empty").mkdir()
    said("is an empty folder", tmp_path / "empty", frames=True)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("a")
    said("holds no clips: sub-folders of frames", tmp_path / "text", frames=True)
    stills(tmp_path / "sizes/good")
    stills(tmp_path / "sizes/bad")
    stills(tmp_path / "sizes/bad", 1, (9, 9), "later{}.png")
    said(r"bad: frames of one clip differ in size, bad/0.png \(16x12\) and bad/later0.png "
         r"\(9x9\); image_size= resizes them \(1 of 2 clips\)", tmp_path / "sizes", frames=True)
    assert open_source(str(tmp_path / "sizes"), frames=True, image_size=8).base.x.shape == (
        7, 1, 8, 8)
    rest = open_source(str(tmp_path / "sizes"), frames=True, on_error="skip")
    assert len(rest.base) == 3 and "left out 1 of 2 clips" in rest.notes[0]
    whole = film(tmp_path / "films/a.gif").read_bytes()
    (tmp_path / "films/b.gif").write_bytes(whole[:len(whole) // 2])
    said("b.gif cannot be decoded: image file is truncated", tmp_path / "films", frames=True)
    said("b.gif cannot be decoded", tmp_path / "films/b.gif")
    assert len(open_source(str(tmp_path / "films"), frames=True, on_error="skip").base) == 4
    said("rate=0 is no number of frames per second", tmp_path / "sizes", frames=True, rate=0)
    said("maps= is for images by themselves", tmp_path / "sizes", frames=True, maps="A")


def test_a_still_whose_pixels_are_damaged_takes_its_clip_with_it(tmp_path):
    for name in ("a", "b"):
        stills(tmp_path / name)
    Image.fromarray(pixels(1)[0, ..., 0]).save(tmp_path / "a/1.png")
    data = (tmp_path / "a/1.png").read_bytes()
    (tmp_path / "a/1.png").write_bytes(data[:len(data) // 2])
    with pytest.raises(DataError, match=r"a cannot be decoded: .*\(1 of 2 clips\)"):
        open_source(str(tmp_path), frames=True)
    rest = open_source(str(tmp_path), frames=True, on_error="skip")
    assert rest.base.take("names").tolist() == ["b/0.png", "b/1.png", "b/2.png"]


def test_a_clip_of_one_frame_is_named(tmp_path):
    alone = open_source(str(film(tmp_path / "one/a.gif", pixels(1))))
    assert alone.base.neighbours.tolist() == [0] and not alone.space.frames
    assert alone.notes == ("1 of 1 clips hold one frame, which has no neighbour: a.gif",)
    film(tmp_path / "one/b.gif")
    assert open_source(str(tmp_path / "one"), frames=True).space.frames


def test_videos_need_a_reader_that_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"0")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DataError, match=r"install imageio-ffmpeg .* or unpack its frames"):
        open_source(str(tmp_path / "a.mp4"))
    source = types.SimpleNamespace(read_frames=lambda path: iter(
        [{"size": (16, 12), "fps": 25.0}, *(frame.tobytes() for frame in pixels())]))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", source)
    source.read_frames = lambda path: (x for x in [{"size": (16, 12), "fps": 25.0}, *(
        frame.tobytes() for frame in pixels())])
    data = open_source(str(tmp_path / "a.mp4")).base
    np.testing.assert_array_equal(data.x.transpose(0, 2, 3, 1), pixels())
    assert data.duration.tolist() == [40] * 4


# ------------------------------------------------------------------------------ learning

def test_batches_hold_the_neighbours_of_both_domains():
    data = tiny.clips()
    batch = Batches(data, 64, seed=3).at(2)
    a, b = data.a, data.b
    place = batch.a.index % 5
    expected = torch.from_numpy(a.x)[torch.where(place < 4, batch.a.index + 1, batch.a.index - 1)]
    torch.testing.assert_close(batch.a.neighbour, a.space.to_model(expected.float()))
    for x, after in zip(batch.b.x, batch.b.neighbour, strict=True):
        result = [i for i in range(48) if torch.equal(
            b.space.to_model(torch.from_numpy(b.x[i]).float()), x)]
        near = [b.x[i + (1 if i % 4 < 3 else -1)] for i in result]
        assert any(np.array_equal(b.space.to_data(after.numpy()).round(), n) for n in near)
    half = Batches(data, 64, seed=3, rank=1, world=2).at(2)
    assert torch.equal(half.a.neighbour, batch.a.neighbour[32:])
    assert Batches(tiny.domains(), 4).at(0).a.neighbour is None


def test_cycle_gan_pays_for_what_the_motion_does_not_explain():
    data = tiny.clips()
    batch, steps = Batches(data, 6).at(0), [Step(0, 0, p, Noise(0)) for p in (0, GROWING / 2, 1)]
    small = {w: tiny.small("cycle-gan", temporal=w, replay_buffer=0) for w in (0.0, 7.0)}
    result = {w: [dict(tiny.build("cycle-gan", data, config).losses(batch, step))["generators"]
                 for step in steps] for w, config in small.items()}
    model = tiny.build("cycle-gan", data, tiny.small("cycle-gan", temporal=7.0, replay_buffer=0))
    expected = 0
    for x, after, translate in ((batch.a.x, batch.a.neighbour, model.G_AB),
                                (batch.b.x, batch.b.neighbour, model.G_BA)):
        way = motion.estimate(motion.grey(x), motion.grey(after))
        weight = motion.explained(x, after, way, 2.0)
        expected = expected + cycle_gan.flicker(translate(x), translate(after), way, weight).mean()
    term = result[7.0][0].terms["temporal"]
    torch.testing.assert_close(term, expected)
    for share, none, some in zip((0, 0.5, 1), result[0.0], result[7.0], strict=True):
        torch.testing.assert_close(some.total, none.total + share * 7 * term)
    assert "temporal" not in result[0.0][0].terms


def test_the_term_is_for_frames_and_is_theirs_by_default():
    weights = {"images": tiny.domains(), "frames": tiny.clips()}
    result = {k: tiny.build("cycle-gan", d, tiny.small("cycle-gan")).config.temporal
             for k, d in weights.items()}
    assert result == {"images": 0.0, "frames": TEMPORAL}
    said = {k: tiny.build("cycle-gan", d, tiny.small("cycle-gan")).describe(9)
            for k, d in weights.items()}
    assert said["frames"] == f"{said['images']}, temporal {TEMPORAL:g}"
    with pytest.raises(ConfigError, match="temporal=3 is for frames"):
        tiny.build("cycle-gan", tiny.domains(), tiny.small("cycle-gan", temporal=3.0))
    one = tiny.clips()  # one domain of frames is enough
    mixed = PairDataset(one.a, Dataset(one.b.x, Images(one.b.x.shape[1:], 17)), aligned=False)
    model = tiny.build("cycle-gan", mixed, tiny.small("cycle-gan"))
    terms = dict(model.losses(Batches(mixed, 4).at(0),
                              Step(0, 0, 1.0, Noise(0))))["generators"].terms
    assert model.config.temporal == TEMPORAL and terms["temporal"] > 0


# ------------------------------------------------------------------------------ using

def test_flicker_is_measured_beside_that_of_the_input():
    data = tiny.clips()
    model = tiny.build("cycle-gan", data, tiny.small("cycle-gan")).eval()
    for to in "BA":
        source = data.a if to == "B" else data.b
        figure = evaluated(model, train=data, test=data, to=to, metrics=["translation"]).get(
            "flicker")
        later = np.flatnonzero(np.diff(source.clip) == 0) + 1
        transform, weight = motions(source.x[later - 1], source.x[later], 16.0)
        output = latlas.translate(model, data, to=to)
        usable = weight.sum((1, 2, 3)) > 0
        expected, own = (flicker(x[later - 1][usable], x[later][usable], transform[usable], 16.0,
                                 weight[usable]) for x in (output, source.x))
        assert figure.value == pytest.approx(expected.mean())
        assert figure.control == pytest.approx(own.mean())
    plain = tiny.domains()
    model = tiny.build("cycle-gan", plain, tiny.small("cycle-gan")).eval()
    assert evaluated(model, train=plain, test=plain).get("flicker") is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of GIFs, and the GIFs."""
    root = tmp_path_factory.mktemp("films")
    for side, shape in (("A", (16, 16)), ("B", (16, 16, 3))):
        for c in range(4):
            film(root / f"data/train{side}/c{c}.gif", pixels(4, shape, seed=c))
    latlas.train("cycle-gan", open_source(str(root / "data"), frames=True), out=root / "run",
                 images=8, width=4, blocks=1, threads=1, precision="fp32", progress=False)
    return root / "run"


def read_frames(path):
    """Frames and their times."""
    with Image.open(path) as image:
        result = []
        for i in range(image.n_frames):
            image.seek(i)
            image.load()
            result.append((np.asarray(image.convert("RGB")), image.info["duration"]))
    return np.stack([x for x, _ in result]), [time for _, time in result]


def test_a_gif_becomes_a_gif_of_the_same_times(run, tmp_path, capsys):
    clip = run.parent / "data/trainA/c1.gif"
    for name in ("out.gif", "out.webp"):
        assert cli.run(["translate", str(run), "--data", str(clip), "--out",
                        str(tmp_path / name)]) == 0
    assert "wrote 4 frames" in capsys.readouterr().out
    output = latlas.translate(run, str(clip)).values.transpose(0, 2, 3, 1)
    x, times = read_frames(tmp_path / "out.webp")
    np.testing.assert_array_equal(x, output)
    assert times == TIMES
    x, times = read_frames(tmp_path / "out.gif")
    assert times == TIMES and np.abs(x.astype(int) - output).mean() < 8  # 256 colours


def test_a_folder_of_films_goes_on(run, tmp_path, capsys):
    line = ["translate", str(run), "--data", str(run.parent / "data/trainA"), "--out",
            f"{tmp_path / 'made'}/"]
    assert cli.run(line) == 0 and "wrote 4 files" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [
        *(f"c{i}.gif" for i in range(4)), "results.json"]
    (tmp_path / "made/c2.gif").unlink()
    (tmp_path / "made/c0.gif").write_bytes(b"mine")
    assert cli.run(line) == 0
    said = capsys.readouterr().out
    assert "wrote 1 file " in said and "3 were there" in said and "input above output" in said
    assert (tmp_path / "made/c0.gif").read_bytes() == b"mine"
    assert read_frames(tmp_path / "made/c2.gif")[1] == TIMES
    sheet = np.asarray(Image.open(tmp_path / "made-sheet.png"))
    assert sheet.shape[0] == 2 * sheet.shape[1] - 3  # 8 rows of 4 frames


def test_frame_folders_become_frame_folders(run, tmp_path, capsys):
    for clip, n in (("walk", 3), ("deep/run", 2)):
        stills(tmp_path / "in" / clip, n, (16, 16), "f{}.jpg")
    assert cli.run(["translate", str(run), "--data", str(tmp_path / "in"), "--out",
                    f"{tmp_path / 'out'}/"]) == 0
    result = sorted(p.relative_to(tmp_path / "out").as_posix()
                   for p in (tmp_path / "out").rglob("*.png"))
    assert result == ["deep/run/f0.jpg.png", "deep/run/f1.jpg.png", "walk/f0.jpg.png",
                      "walk/f1.jpg.png", "walk/f2.jpg.png"]


def test_clips_of_an_array_come_back_as_clips(run, tmp_path):
    np.savez(tmp_path / "x.npz", x=pixels(6, (16, 16)).reshape(2, 3, 16, 16))
    assert cli.run(["translate", str(run), "--data", str(tmp_path / "x.npz"), "--out",
                    str(tmp_path / "y.npz")]) == 0
    assert np.load(tmp_path / "y.npz")["x"].shape == (2, 3, 3, 16, 16)


def test_several_clips_are_no_single_film(run, tmp_path, capsys):
    assert cli.run(["translate", str(run), "--data", str(run.parent / "data/trainA"), "--out",
                    str(tmp_path / "x.gif")]) == 2
    assert ".gif holds one clip, and there are 4 clips; name a folder/" in capsys.readouterr().err


def test_films_keep_their_colours_from_frame_to_frame(tmp_path):
    """One palette: what is the same in two frames is the same in the file."""
    x = np.zeros((3, 3, 16, 16), np.uint8) + 77
    x[:, :, :8] = pixels(3, (8, 16, 3)).transpose(0, 3, 1, 2)
    write_film(tmp_path / "a.gif", x, Images((3, 16, 16)), np.array([20, 30, 40]))
    output, times = read_frames(tmp_path / "a.gif")
    assert times == [20, 30, 40] and (output[:, 8:] == output[0, 8, 0]).all()
    few = np.repeat(np.arange(3, dtype=np.uint8)[:, None, None, None] * 100, 3, 1) + np.zeros(
        (3, 3, 16, 16), np.uint8)
    write_film(tmp_path / "b.gif", few, Images((3, 16, 16)), np.array([20, 30, 40]))
    np.testing.assert_array_equal(read_frames(tmp_path / "b.gif")[0], few.transpose(0, 2, 3, 1))


def test_a_video_is_written_at_its_rate(tmp_path, monkeypatch):
    frames, said = [], {}

    def write_frames(path, size, fps, **more):
        said.update(size=size, fps=fps)
        Path(path).write_bytes(b"film")
        while True:
            frames.append((yield).copy())

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", types.SimpleNamespace(
        write_frames=write_frames))
    x = pixels().transpose(0, 3, 1, 2)
    write_film(tmp_path / "a.mp4", x, Images((3, 12, 16)), np.full(4, 40.0))
    assert said == {"size": (16, 12), "fps": 25.0} and (tmp_path / "a.mp4").exists()
    np.testing.assert_array_equal(np.stack(frames), pixels())


def test_clips_are_found_in_what_is_left_of_them():
    data = tiny.clips().a.subset(slice(3, 12))
    assert [(c.name, c.frames) for c in clips_of(data)] == [
        ("00000", slice(0, 2)), ("00001", slice(2, 7)), ("00002", slice(7, 9))]
    assert clips_of(tiny.pairs().a) == []
