"""Recordings: read, pictured, put together again, translated whole and written."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
from scipy.io import wavfile

import latlas
from latlas.cli.__main__ import run as command
from latlas.core.errors import ConfigError, DataError
from latlas.core.space import Images, PairSpace, Recordings, Sound, parse_space
from latlas.data import info, open_pair, open_source, pack, split
from latlas.data import recordings as sounds
from latlas.data.dataset import partition
from latlas.data.recordings import Listening, picture_of, starts
from latlas.data.recordings import open_recordings as open_files
from latlas.data.soundfiles import Clip, read_sound, resampled, sound_bytes
from latlas.run import Run
from latlas.verbs.translating import open_recordings, translate_clip, translated_picture

RATE = 8000
KIND = Sound(RATE, 64, 16, 80.0)
SMALL = {"n_fft": 64, "hop": 16, "window": 16}


def tone(seconds: float, pitch: float, rate: int = RATE, loud: float = 0.3) -> Any:
    """A few harmonics that rise in pitch and fade."""
    t = np.arange(round(seconds * rate)) / rate
    turns = 2 * np.pi * pitch * (t + 0.3 * t**2)
    return loud * np.exp(-2 * t) * sum(np.sin(k * turns) / k for k in (1, 2, 3))


def inconsistency(x: Any, magnitude: Any, n_fft: int, hop: int) -> float:
    """‖ |STFT(x)| − M ‖ / ‖M‖: how far a sound's magnitude is from the one wanted."""
    gap = np.abs(sounds.spectrum(x, n_fft, hop)) - magnitude
    return float(np.linalg.norm(gap) / np.linalg.norm(magnitude))


def save(path: Path, x: Any, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound_bytes(x, rate))


@pytest.fixture
def speakers(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of ten tones each, a low voice and a high one."""
    for name, pitch in (("low", 110), ("high", 310)):
        for i in range(10):
            save(tmp_path / name / f"{i}.wav", tone(0.06 + 0.01 * i, pitch + 5 * i))
    return tmp_path / "low", tmp_path / "high"


# spectra and phase


def test_spectra_are_those_of_scipy() -> None:
    for n in (200, 256, 257):
        x = np.random.default_rng(n).standard_normal(n)
        found = sounds.spectrum(x, 64, 16)
        theirs = scipy.signal.stft(x, nperseg=64, noverlap=48)[2] * sounds.hann(64).sum()
        np.testing.assert_allclose(found, theirs, atol=1e-12)
        assert found.shape == (33, sounds.frames_of(n, 16))


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 32), (48, 16)])
def test_a_sound_comes_back_from_its_spectrum(n_fft: int, hop: int) -> None:
    x = np.random.default_rng(0).standard_normal(300)
    back = sounds.from_spectrum(sounds.spectrum(x, n_fft, hop), n_fft, hop, 300)
    np.testing.assert_allclose(back, x, atol=1e-10)


def test_of_two_sounds_the_mean_spectrum_gives_the_mean() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 300))
    middle = (sounds.spectrum(x, 64, 16) + sounds.spectrum(y, 64, 16)) / 2
    np.testing.assert_allclose(sounds.from_spectrum(middle, 64, 16, 300), (x + y) / 2, atol=1e-10)


def test_plain_griffin_lim_never_gets_worse_and_momentum_gets_further() -> None:
    expected = np.abs(sounds.spectrum(tone(0.2, 200), 64, 16))
    expected[10:20] *= 2  # of no sound

    def after(rounds: int, momentum: float) -> float:
        x = sounds.griffin_lim(expected, 64, 16, 1600, rounds=rounds, momentum=momentum)
        return inconsistency(x, expected, 64, 16)

    errors = [after(rounds, 0.0) for rounds in range(12)]
    assert (np.diff(errors) <= 1e-9).all() and errors[-1] < 0.9 * errors[0]
    assert after(60, 0.99) < after(60, 0.0)


def test_with_the_true_phase_nothing_is_left_to_do() -> None:
    x = tone(0.2, 200)
    spectra = sounds.spectrum(x, 64, 16)
    output = sounds.griffin_lim(np.abs(spectra), 64, 16, len(x), phase=np.angle(spectra), rounds=5)
    np.testing.assert_allclose(output, x, atol=1e-5)


def test_a_picture_of_a_spectrum_keeps_it_to_half_a_level() -> None:
    spectra = sounds.spectrum(tone(0.2, 200), 64, 16)
    level = np.abs(spectra) / np.abs(spectra[:-1]).max()
    image = sounds.pictured(spectra, KIND)
    assert image.shape == (1, 32, 101) and image.dtype == np.uint8 and image.max() == 255
    back = sounds.magnitude_of(image, KIND)
    audible = level[:-1] > 10 ** (-79.5 / 20)
    decibels = 20 * np.log10(back[:-1][audible] / level[:-1][audible])
    assert np.abs(decibels).max() <= 80 / 255 / 2 + 1e-9
    assert (back[-1] == 0).all()
    assert image[0, -1].mean() > image[0, 0].mean()  # low tones are below


def test_resampling_keeps_a_tone() -> None:
    high = resampled(tone(0.1, 300, 16_000), 16_000, RATE)
    low = tone(0.1, 300)
    assert len(high) == len(low)
    np.testing.assert_allclose(high[100:-100], low[100:-100], atol=0.01)


# sources


def test_windows_cover_a_recording_and_a_short_one_lies_anywhere_in_one(tmp_path: Path) -> None:
    save(tmp_path / "long.wav", tone(0.08, 300))  # 41 frames
    save(tmp_path / "short.wav", tone(0.02, 300))  # 11
    source = open_source(tmp_path, **SMALL)
    data = source.base
    assert source.space.shape == (1, 32, 16) and source.space.sound == KIND
    whole = [picture_of(open_files(tmp_path, how=Listening()).clip(i), KIND) for i in (0, 1)]
    assert [p.shape[2] for p in whole] == [41, 11]
    places = starts(41, 16, 2)
    assert places == [*range(0, 25, 2), 25]
    for x, at in zip(data.x, places, strict=False):
        np.testing.assert_array_equal(x, whole[0][:, :, at:at + 16])
    for x, at in zip(data.x[len(places):], starts(11, 16, 2), strict=True):
        np.testing.assert_array_equal(x[:, :, at:at + 11], whole[1])
        assert x[:, :, :at].sum() == x[:, :, at + 11:].sum() == 0
    assert set(data.names.tolist()) == {"long.wav", "short.wav"}
    assert any("1 of 2 recordings shorter than a window" in note for note in info(source)["notes"])


def test_mixed_rates_and_channels_are_brought_to_one_and_said(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.wav", tone(0.1, 300))
    save(tmp_path / "fast.wav", tone(0.1, 300, 16_000), 16_000)
    wavfile.write(tmp_path / "two.wav", RATE, np.zeros((900, 2), np.int16) + np.int16([50, 70]))
    source = open_source(tmp_path)
    assert source.space.sound == Sound(8000, 256, 64, 80.0)
    said = " ".join(source.notes)
    assert "1 of 5 recordings resampled to 8,000 Hz" in said
    assert "1 of 5 recordings made mono" in said
    fast, slow = (source.base.x[source.base.names == name][0] for name in ("fast.wav", "0.wav"))
    assert np.abs(fast.astype(int) - slow)[:, 16:, :8].mean() < 5


def test_two_sources_of_two_rates_meet_at_the_lower_one(tmp_path: Path) -> None:
    save(tmp_path / "a/x.wav", tone(0.1, 300))
    save(tmp_path / "b/x.wav", tone(0.1, 500, 22_050), 22_050)
    for source in (open_pair(tmp_path / "a", tmp_path / "b"),
                   open_source(open_pair(tmp_path / "b", tmp_path / "a").spec)):
        assert source.space.a.sound == source.space.b.sound == Sound(8000, 256, 64, 80.0)
        assert "resampled to 8,000 Hz" in " ".join(source.notes)


def test_labels_splits_and_equal_files(tmp_path: Path) -> None:
    for i in range(30):
        save(tmp_path / f"set/{'one' if i % 2 else 'two'}/{i}.wav", tone(0.05, 200 + i))
    save(tmp_path / "set/two/again.wav", tone(0.05, 200))
    source = open_source(tmp_path / "set", **SMALL)
    assert source.space.classes == ("one", "two")
    names, group = source.base.names, source.base.group
    # 26 frames: windows from 0, 2, … 10, each with its recording's label
    assert names.tolist() == sorted(names.tolist()) and len(names) == 31 * 6
    folders = [str(name).partition("/")[0] for name in names]
    assert [source.space.classes[code] for code in source.base.label] == folders
    assert group[names == "two/again.wav"][0] == group[names == "two/0.wav"][0]
    of = [{str(v) for v in names[rows]} for rows in partition(source).values()]
    assert all(len(part) for part in of) and sum(map(len, of)) == 31


def test_patterns_domains_and_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for who in "xy":
            for i in range(3):
                archive.writestr(f"rec/{i}_{who}.wav", sound_bytes(tone(0.05, 200 + i), RATE))
    both = open_pair(f"{tmp_path}/all.zip::*_x.wav", f"{tmp_path}/all.zip::*_y.wav", **SMALL)
    a, b = (set(d.take("names").tolist()) for d in (split(both, "all").a, split(both, "all").b))
    assert a == {f"rec/{i}_x.wav" for i in range(3)} and b == {f"rec/{i}_y.wav" for i in range(3)}
    assert not both.aligned
    again = open_source(json.loads(json.dumps(both.spec)))
    np.testing.assert_array_equal(again.a.base.x, both.a.base.x)
    packed = pack((f"{tmp_path}/all.zip::*_x.wav", f"{tmp_path}/all.zip::*_y.wav"),
                  tmp_path / "packed", **SMALL)
    assert packed.space == both.space
    np.testing.assert_array_equal(packed.b.base.x, both.b.base.x)
    one = open_source(f"{tmp_path}/all.zip::*_x.wav", memory_share=1e-12, **SMALL)
    assert isinstance(one.base.x, np.memmap)
    np.testing.assert_array_equal(one.base.x, both.a.base.x)


def test_folders_of_two_domains(tmp_path: Path) -> None:
    for name, pitch in (("trainA", 100), ("trainB", 300), ("testA", 105), ("testB", 305)):
        for i in range(2):
            save(tmp_path / f"d/{name}/{i}.wav", tone(0.05, pitch + i))
    source = open_source(tmp_path / "d", **SMALL)
    turned = open_source(tmp_path / "d", direction="BtoA", **SMALL)
    assert not source.aligned and "test" in source.parts
    np.testing.assert_array_equal(turned.a.base.x, source.b.base.x)


def test_a_space_of_sound_is_written_and_read() -> None:
    space = Recordings((1, 32, 16), sound=KIND)
    assert parse_space(json.loads(json.dumps(space.to_json()))) == space
    assert "sound" not in Images((1, 32, 16)).to_json()
    assert KIND.to_json()["floor"] == 80.0


# bad input


def test_what_is_no_source_of_recordings(tmp_path: Path) -> None:
    save(tmp_path / "good/a.wav", tone(0.1, 300))
    (tmp_path / "good/b.wav").write_bytes(b"RIFF")
    for options, said in (
            ({}, r"b\.wav cannot be read.*1 of 2 recordings.*on_error=skip"),
            ({"window": 20}, "window=20.*multiple of 8"), ({"hop": 100}, "hop=100"),
            ({"n_fft": 100}, "n_fft=100"), ({"floor": 0}, "floor=0"), ({"rate": 10}, "rate=10"),
            ({"image_size": 8}, "image_size"), ({"on_error": "no"}, "on_error"),
            ({"stride": 0}, "stride=0"), ({"direction": "up"}, "direction")):
        with pytest.raises(DataError, match=said):
            open_source(tmp_path / "good", **options)
    source = open_source(tmp_path / "good", on_error="skip")
    assert set(source.base.names.tolist()) == {"a.wav"} and "left out 1 of 2" in source.notes[0]
    with pytest.raises(DataError, match=r"no recordings \(.*\.wav, .*\) whose names match nobody"):
        open_source(f"{tmp_path / 'good'}::nobody*")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty folder"):
        open_pair(tmp_path / "good", tmp_path / "empty", on_error="skip")
    with pytest.raises(DataError, match="not taken as pairs"):
        open_pair(tmp_path / "good", tmp_path / "good", on_error="skip", paired=True)


def test_voices_are_not_mixed_with_pictures_or_other_spectra(speakers: tuple[Path, Path]) -> None:
    a, b = (open_source(path, **SMALL) for path in speakers)
    other = open_source(speakers[1], **{**SMALL, "floor": 60})
    with pytest.raises(DataError, match=r"A is of 8,000 Hz.*80 dB, B of 8,000 Hz.*60 dB.*floor="):
        latlas.train("cycle-gan", open_pair(a, other), images=1, progress=False, width=2)
    bare = np.zeros((4, 1, 32, 16), np.uint8)
    with pytest.raises(DataError, match="B of images"):
        latlas.train("cycle-gan", open_pair(b, open_source(bare)), images=1, progress=False,
                     width=2)


def test_what_is_left_open_is_chosen_for_recordings_and_said_in_the_run(
        speakers: tuple[Path, Path], tmp_path: Path) -> None:
    source = open_pair(*speakers, **SMALL)
    for values, expected in (({}, (1.5, 0.0, "r1", 5e-5, 4)),
                          ({"cycle": 7.0, "identity": 0.0, "penalty": "none", "gamma": 0.5,
                            "r1_interval": 2}, (7.0, 0.0, "none", 0.5, 2))):
        out = tmp_path / str(len(values))
        for _ in range(2):  # again: it goes on, or is finished
            model = latlas.train("cycle-gan", source, out=out, images=2, width=2, blocks=1,
                                 progress=False, threads=1, **values).model
        config = json.loads((out / "run.json").read_text())["config"]
        assert config["network"] == "columns" and model.config.width == 2
        assert tuple(config[k] for k in ("cycle", "identity", "penalty", "gamma",
                                         "r1_interval")) == expected
    seen = open_pair(np.zeros((9, 1, 8, 8), np.uint8), np.ones((9, 1, 8, 8), np.uint8))
    image_run = latlas.train("cycle-gan", seen, images=1, width=2, blocks=1, progress=False,
                            threads=1).model.config
    assert (image_run.network, image_run.cycle, image_run.identity, image_run.penalty) == (
        "residual", 10.0, 5.0, "none")


# whole clips


class Same:
    """Translates to what it is given."""

    ways = ("A", "B")
    device = "cpu"
    training = False

    def __init__(self) -> None:
        space = Recordings((1, 32, 16), sound=KIND)
        self.space = PairSpace(space, space, False)

    def translate(self, x: Any, *, to: str = "B", noise: Any = None) -> Any:
        return x

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...


@pytest.mark.parametrize("frames", [3, 15, 16, 17, 24, 25, 100])
def test_windows_that_stay_as_they_are_fade_into_the_same_clip(frames: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, frames)).astype(np.uint8)
    model = Same()
    np.testing.assert_allclose(translated_picture(model, image, "B"), image, atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000])
@pytest.mark.parametrize("n", [1, 100, 2345])
def test_length_rate_and_loudness_are_kept(n: int, rate: int) -> None:
    x = tone(n / rate, 250, rate, 0.2) + 0.01 * np.random.default_rng(0).standard_normal(n)
    output = translate_clip(Same(), Clip(x, rate), to="B")
    assert len(output.x) == n and output.rate == rate
    assert np.sqrt(np.square(output.x).mean()) == pytest.approx(np.sqrt(np.square(x).mean()))


def test_the_way_through_pictures_alone_changes_little_and_silence_stays() -> None:
    x = tone(0.3, 250)
    output = translate_clip(Same(), Clip(x, RATE))
    expected = np.abs(sounds.spectrum(x, 64, 16))
    assert inconsistency(output.x, expected, 64, 16) < 0.15
    assert not translate_clip(Same(), Clip(np.zeros(500), RATE)).x.any()
    loud = translate_clip(Same(), Clip(np.sign(x), RATE)).x
    assert np.abs(loud).max() <= 1 + 1e-12


# the whole way


def test_two_folders_to_wav_files(speakers: tuple[Path, Path], tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = [v for k, o in SMALL.items() for v in ("--data-option", f"{k}={o}")]
    assert command(["train", "cycle-gan", "--data", str(speakers[0]), "--data", str(speakers[1]),
                    *options, "--out", str(run), "--images", "8", "--set", "width=2", "--set",
                    "blocks=1", "--set", "threads=1"]) == 0
    save(tmp_path / "new/deep/long.wav", tone(0.5, 130, 16_000), 16_000)
    save(tmp_path / "new/short.wav", tone(0.02, 130))
    out = tmp_path / "made"
    for said in ("wrote 2 recordings", "is complete: wrote 0 recordings; 2 were there"):
        assert command(["translate", str(run), "--data", str(tmp_path / "new"), "--out",
                        str(out)]) == 0
        assert re.search(said, capsys.readouterr().out)
    long = read_sound((out / "deep/long.wav").read_bytes())
    values = read_sound((tmp_path / "new/deep/long.wav").read_bytes())
    assert long.rate == 16_000 and len(long.x) == len(values.x)
    assert np.sqrt(np.square(long.x).mean()) == pytest.approx(
        np.sqrt(np.square(values.x).mean()), rel=1e-2)
    assert (tmp_path / "made-sheet.png").is_file()
    # of the run's own data the held-out part, each way; one file alone
    for to, side in (("B", "A"), ("A", "B")):
        clips = open_recordings(Run(run), None, side=side)
        held_out = split(open_pair(*speakers, **SMALL), "test")
        held_out = held_out.a if side == "A" else held_out.b
        assert clips.names == list(dict.fromkeys(held_out.take("names").tolist()))
        assert command(["translate", str(run), "--to", to]) == 0
        assert len(list((run / f"to-{to}").rglob("*.wav"))) == len(clips)
    one, = latlas.translate(run, tmp_path / "new/short.wav")
    np.testing.assert_allclose(one.x, read_sound((out / "short.wav").read_bytes()).x, atol=1e-4)
    assert np.isfinite(latlas.evaluate(run, metrics=("translation",), samples=20).metrics[0].value)


def test_bad_input_to_a_run_of_voices(speakers: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    latlas.train("cycle-gan", open_pair(*speakers, **SMALL), out=run, images=2, width=2, blocks=1,
                 progress=False, threads=1)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no recordings"):
        latlas.translate(run, tmp_path / "images")
    with pytest.raises(DataError, match="no such file"):
        latlas.translate(run, tmp_path / "nowhere")
    (tmp_path / "broken.wav").write_bytes(b"RIFF....")
    with pytest.raises(DataError, match=r"broken\.wav cannot be read"):
        latlas.translate(run, tmp_path / "broken.wav")
    audible = tmp_path / "heard"
    shutil.copytree(speakers[0], audible)
    (audible / "cut.wav").write_bytes(next(speakers[0].glob("*.wav")).read_bytes()[:30])
    with pytest.raises(DataError, match=r"cut\.wav cannot be read: it is cut off.*on_error=skip"):
        latlas.translate(run, audible)
    assert len(latlas.translate(run, audible, on_error="skip")) == len(list(audible.iterdir())) - 1
    with pytest.raises(ConfigError, match="to=C"):
        latlas.translate(run, speakers[0], to="C")
    assert command(["translate", str(run), "--out", str(tmp_path / "x.npz")]) != 0
