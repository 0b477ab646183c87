"""Files of sound: of every kind, of streams, cut off, and absurd."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

import latlas
from latlas.cli.__main__ import run as command
from latlas.core.errors import DataError
from latlas.data import info, open_pair, open_source
from latlas.data.files import SOUNDS
from latlas.data.soundfiles import FORMATS, read_sound, resampled, sound_bytes

RATE = 8000
WHOLE = np.rint(9000 * np.sin(np.arange(4000) ** 1.1 / 9)).astype(np.int16)
X = WHOLE / 32768
SMALL = {"n_fft": 64, "hop": 16, "window": 16}


def chunk(name: bytes, body: bytes, size: int | None = None, pad: bool = True, order: str = "<"
          ) -> bytes:
    size = len(body) if size is None else size
    return struct.pack(f"{order}4sI", name, size) + body + bytes(pad and len(body) % 2)


def wav(size: int | None = None, *, between: bytes = b"", after: bytes = b"", rate: int = RATE,
        channels: int = 1, body: bytes = WHOLE.tobytes(), magic: bytes = b"RIFF",
        order: str = "<", riff: int | None = None) -> bytes:
    """16 bits; ``size`` is what the header says of the samples' bytes."""
    form = struct.pack(f"{order}HHIIHH", 1, channels, rate, 2 * channels * rate & 0xFFFFFFFF,
                       2 * channels, 16)
    rest = b"WAVE" + between[:0] + chunk(b"fmt ", form, order=order) + between + chunk(
        b"data", body, size, order=order) + after
    return struct.pack(f"{order}4sI", magic, len(rest) if riff is None else riff) + rest


def encoded(kind: str, encoding: str | None = None, x: Any = X, rate: int = RATE, **more: Any
            ) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=kind, subtype=encoding, **more)
    return buffer.getvalue()


# of every kind


@pytest.mark.parametrize(("kind", "encoding"), [
    pair for pair in product(("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "NIST"),
                             ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE",
                              "ULAW", "ALAW")) if soundfile.check_format(*pair)])
def test_encodings_without_loss(kind: str, encoding: str) -> None:
    clip = read_sound(encoded(kind, encoding))
    assert clip.rate == RATE and clip.channels == 1 and not clip.unbounded
    step = {"PCM_U8": 1 / 127, "PCM_S8": 1 / 127, "ULAW": 0.02, "ALAW": 0.02}.get(encoding, 0)
    np.testing.assert_allclose(clip.x, X, atol=step)
    assert clip.kind.endswith(f" {encoding}")


@pytest.mark.parametrize(("stored", "expected"), [
    (np.array([0, 64, 128, 255], np.uint8), [-1, -0.5, 0, 127 / 128]),
    (np.array([-32768, -1, 0, 32767], np.int16), [-1, -1 / 32768, 0, 32767 / 32768]),
    (np.array([-2**31, 2**30, 0, 1], np.int32), [-1, 0.5, 0, 2.0**-31]),
    (np.array([-1, 0.1, 1.5, 0], np.float32), [-1, np.float32(0.1), 1.5, 0]),
    (np.array([-1, 0.1, 1.5, 0], np.float64), [-1, 0.1, 1.5, 0])])
def test_numbers_of_wav_files_are_exact(stored: Any, expected: list[float]) -> None:
    buffer = io.BytesIO()
    wavfile.write(buffer, RATE, stored)
    assert read_sound(buffer.getvalue()).x.tolist() == expected


@pytest.mark.parametrize(("kind", "encoding"), [
    ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"), ("CAF", "ALAC_16")])
def test_lossy_and_packed_encodings(kind: str, encoding: str) -> None:
    x = np.sin(np.arange(8080) / 9) / 3
    clip = read_sound(encoded(kind, encoding, x))
    assert len(clip.x) >= len(x) and np.corrcoef(clip.x[:len(x)], x)[0, 1] > 0.98
    assert not clip.unbounded


def test_channels_are_averaged_as_they_always_were() -> None:
    x = np.random.default_rng(0).integers(-32768, 32768, (999, 3)).astype(np.int16)
    for kind in ("WAV", "WAVEX", "FLAC", "AIFF"):
        clip = read_sound(encoded(kind, "PCM_16", x))
        assert clip.channels == 3
        np.testing.assert_array_equal(clip.x, (x / 32768).mean(axis=1))


def test_a_wav_file_of_16_bits_is_written_as_ever() -> None:
    buffer = io.BytesIO()
    wavfile.write(buffer, RATE, np.rint(np.clip(X * 4, -1, 1) * 32767).astype(np.int16))
    assert sound_bytes(X * 4, RATE) == buffer.getvalue()


def test_every_ending_has_a_format() -> None:
    assert set(FORMATS) == SOUNDS


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(ending: str) -> None:
    for rate in (8000, 44_100):
        clip = read_sound(sound_bytes(X, rate, ending))
        assert clip.rate == rate and clip.kind.split()[0] == FORMATS[ending]
        assert ("OPUS" in clip.kind) == (ending == ".opus" and rate == 8000)
        assert len(clip.x) == len(X)
    if ending == ".mp3":
        with pytest.raises(DataError, match=r"96,000 samples a second cannot be written as \.mp3"):
            sound_bytes(X, 96_000, ending)


# lengths


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFF000 - 36, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000,
                                  0xFFFFFFDB, 0xFFFFFFFE, 0])
def test_a_stream_is_read_to_its_end(size: int) -> None:
    for data in (wav(size, riff=0xFFFFFFFF), wav(size, riff=0), wav(size, riff=size),
                 wav(size, between=chunk(b"LIST", b"INFOx", pad=False))):
        clip = read_sound(data)
        np.testing.assert_array_equal(clip.x, X)
        assert clip.unbounded
    swapped = wav(size, body=WHOLE.astype(">i2").tobytes(), magic=b"RIFX", order=">")
    np.testing.assert_array_equal(read_sound(swapped).x, X)


def test_streams_of_other_kinds() -> None:
    au, flac, caf = (encoded(kind, "PCM_16") for kind in ("AU", "FLAC", "CAF"))
    w64, aiff, rf64 = (encoded(kind, "PCM_16") for kind in ("W64", "AIFF", "RF64"))
    at = {kind: data.index(mark) + skip for kind, data, mark, skip in (
        ("caf", caf, b"data", 4), ("w64", w64, b"data", 16), ("aiff", aiff, b"SSND", 4))}
    inside = rf64.index(b"ds64") + 16
    for data in (au[:8] + b"\xff" * 4 + au[12:], flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) +
                 flac[26:], caf[:at["caf"]] + b"\xff" * 8 + caf[at["caf"] + 8:],
                 caf[:at["caf"]] + struct.pack(">q", -2**63) + caf[at["caf"] + 8:],
                 w64[:at["w64"]] + b"\xff" * 7 + b"\x7f" + w64[at["w64"] + 8:],
                 aiff[:at["aiff"]] + b"\x7f\0\0\x08" + aiff[at["aiff"] + 4:],
                 rf64[:inside] + b"\xff" * 8 + rf64[inside + 8:],
                 rf64[:inside] + bytes(8) + rf64[inside + 8:]):
        clip = read_sound(data)
        np.testing.assert_array_equal(clip.x, X)
        assert clip.unbounded


@pytest.mark.parametrize("length", [1, 5, 13])
def test_a_chunk_of_odd_length_may_lack_its_pad_byte(length: int) -> None:
    body = b"INFOIART\1\0\0\0a"[:length]
    for pad in (False, True):
        for data in (wav(between=chunk(b"LIST", body, pad=pad)),
                     wav(between=2 * chunk(b"LIST", body, pad=pad) + chunk(b"junk", bytes(8))),
                     wav(after=chunk(b"LIST", body, pad=pad))):
            clip = read_sound(data)
            np.testing.assert_array_equal(clip.x, X)
            assert not clip.unbounded
    aiff = encoded("AIFF", "PCM_16")
    head = struct.pack(">4sI", b"NAME", length) + body
    np.testing.assert_array_equal(read_sound(aiff[:12] + head + aiff[12:]).x, X)


def test_what_is_there_beyond_the_declared_length_is_no_sound() -> None:
    for data in (wav(7000), wav(7000, magic=b"RIFX", order=">")):
        clip = read_sound(data)
        assert len(clip.x) == 3500 and clip.surplus and not clip.unbounded
    assert not read_sound(wav(0)).surplus
    for twice in (wav(after=chunk(b"data", bytes(500))), encoded("OGG") + encoded("OGG")):
        clip = read_sound(twice)
        assert len(clip.x) == 4000 and clip.surplus
    assert not read_sound(wav(after=2 * chunk(b"LIST", b"INFO") + bytes(9))).surplus
    assert len(read_sound(wav(8001)).x) == 4000  # half a sample is missing


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_what_is_cut_off_is_refused_with_both_numbers(kind: str, share: float) -> None:
    data = encoded(kind, "PCM_24")
    there = int(share * len(data))
    with pytest.raises(DataError) as error:
        read_sound(data[:there])
    left = (4000 * 3 - (len(data) - there)) // 3
    if kind == "WAVEX":  # whose file ends in a chunk of another kind, or not
        left = pytest.approx(left, abs=20)
    assert "its header declares 4,000 samples, and " in str(error.value)
    said = int(str(error.value).split(", and ")[1].split(" are there")[0].replace(",", ""))
    assert said == left


def test_compressed_files_that_are_cut_off() -> None:
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(200_000) / 9) / 2 + rng.normal(0, 0.02, 200_000)
    for kind, encoding, said in (
            ("FLAC", "PCM_16", "declares 200,000 samples, and"),
            ("CAF", "PCM_16", "declares 200,000 samples, and"),
            ("OGG", "VORBIS", "last page is cut off"), ("OGG", "OPUS", "last page is cut off"),
            ("WAV", "IMA_ADPCM", "bytes of samples, and"), ("CAF", "ALAC_16", ".")):
        data = encoded(kind, encoding, x, 16_000)
        for share in (0.5, 0.95):
            with pytest.raises(DataError, match=said):
                read_sound(data[:int(share * len(data))])
    with pytest.raises(DataError, match="declares 200,000 samples, and 149,488 are there"):
        read_sound(encoded("NIST", "PCM_16", x, 16_000)[:300_000])
    ogg = encoded("OGG", "VORBIS", x, 16_000)
    clip = read_sound(ogg[:ogg.rindex(b"OggS")])  # a recorded stream: whole pages, no last one
    assert clip.unbounded and 0 < len(clip.x) < 200_000


def test_a_cut_mp3_is_refused_and_one_without_a_head_is_read(capfd: Any) -> None:
    data = encoded("MP3", "MPEG_LAYER_III", np.sin(np.arange(100_000) / 9) / 2, 16_000,
                   bitrate_mode="CONSTANT")
    with pytest.raises(DataError, match=r"declares 100,000 samples, and [1-9]"):
        read_sound(data[:len(data) // 2])
    tagged = b"ID3\4\0\0" + bytes([0, 0, 2, 0]) + bytes(256) + data
    assert len(read_sound(tagged).x) == 100_000
    with pytest.raises(DataError, match="declares 100,000 samples"):
        read_sound(tagged[:len(tagged) // 2])
    head = Counter(data[at:at + 4] for at in range(len(data)) if data[at:at + 2] == data[:2])
    bare = data[data.index(head.most_common(1)[0][0], 4):]
    clip = read_sound(bare)
    assert clip.unbounded and len(clip.x) >= 100_000
    capfd.readouterr()  # libmpg123 complains on its own


# absurd


@pytest.mark.parametrize(("data", "said"), [
    (b"", "."), (b"RIFX nonsense", "no file of sound"), (b"plain words, and more of them", "."),
    (wav()[:30], "cut off"), (wav(body=b""), "no samples"), (wav(0, after=chunk(b"LIST", b"INFO"),
                                                                 body=b""), "no samples"),
    (encoded("FLAC", x=np.zeros(0)), "."), (encoded("OGG", x=np.zeros(0)), "."),
    (encoded("AIFF", x=np.zeros(0)), "no samples"),
    (encoded("VOC", "PCM_U8"), "the kind VOC is not read"),
    (wav(rate=0), "rate"), (wav(rate=1), "names 1 samples a second; 1,000 to 400,000"),
    (wav(rate=999), "999"), (wav(rate=100_000_000), "100,000,000 samples a second"),
    (wav(rate=400_001), "400,001"), (wav(rate=0xFFFFFFFF), "rate"), (wav(channels=0), "."),
    (wav(channels=5000), "."),
    (encoded("WAV", "FLOAT", np.array([0, np.nan])), "NaN"),
    (encoded("WAV", "DOUBLE", np.array([[0, 0], [np.inf, -np.inf]])), "infinity"),
    (encoded("CAF", "DOUBLE", np.array([1e300, 1.0])), "beyond 1e\\+30"),
    (encoded("AU", "FLOAT", np.array([np.inf])), "infinity")],
    # libsndfile writes the time of day into some: their bytes are no names
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None)
def test_what_is_no_sound_is_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        read_sound(data)
    assert "\n" not in str(error.value) and "BytesIO" not in str(error.value)


def test_absurd_headers_take_no_memory() -> None:
    flac = encoded("FLAC", "PCM_16")
    huge = flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff" * 4 + flac[26:]
    tracemalloc.start()
    for data in (huge, wav(0x70000000), wav(channels=1024, size=0x70000000),
                 wav(between=chunk(b"LIST", b"INFO", 0xFFFFFFF0))):
        with pytest.raises(DataError):
            read_sound(data)
    many = wav(between=20_000 * chunk(b"LIST", b"x", pad=False))
    np.testing.assert_array_equal(read_sound(many).x, X)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_a_recording_longer_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlas.data.dataset.available_memory", lambda: 32_000)
    with pytest.raises(DataError, match=r"too long: .* of memory, and 32 kB are free"):
        read_sound(encoded("FLAC", x=np.zeros(100_000)))


def test_damaged_bytes_give_sound_or_one_line(capfd: Any) -> None:
    rng = np.random.default_rng(0)
    for kind in ("WAV", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"):
        good = encoded(kind)
        for _ in range(60):
            data = bytearray(good[:int(rng.integers(1, len(good)))] if rng.random() < 0.3 else good)
            for at in rng.integers(0, min(len(data), 120), 3):
                data[at] = rng.integers(256)
            try:
                clip = read_sound(bytes(data))
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert 0 < len(clip.x) < 10**7 and np.isfinite(clip.x).all()
    capfd.readouterr()


@pytest.mark.parametrize("rates", [(8000, 16_000), (44_100, 16_000), (1000, 400_000),
                                   (22_050, 8000)])
def test_resampling_keeps_length_and_tone(rates: tuple[int, int]) -> None:
    rate, to = rates
    for n in (1, 2, 333, 4001):
        assert len(resampled(np.ones(n), rate, to)) == -(-n * to // rate)
    x, y = (np.sin(2 * np.pi * 100 * np.arange(r // 2) / r) for r in rates)
    middle = slice(to // 10, -to // 10)
    np.testing.assert_allclose(resampled(x, rate, to)[middle], y[middle], atol=1e-3)


# folders of them


def save(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_folder_of_all_kinds_is_one_source_and_says_what_they_are(tmp_path: Path) -> None:
    for i, ending in enumerate(FORMATS):
        save(tmp_path / f"all/{i:02}{ending.upper() if i % 2 else ending}",
             sound_bytes(X, RATE, ending))
    save(tmp_path / "all/stereo.wav", encoded("WAV", "FLOAT", np.stack([X, X], 1), 16_000))
    save(tmp_path / "all/stream.wav", wav(0xFFFFFFFF))
    source = open_source(tmp_path / "all", **SMALL)
    assert set(source.base.names) == {p.name for p in (tmp_path / "all").iterdir()}
    said = "\n".join(info(source)["notes"])
    assert "WAV PCM_16 (3)" in said and "OGG VORBIS (2)" in said and "OGG OPUS (1)" in said
    assert "MP3 MPEG_LAYER_III (1)" in said and "WAV FLOAT (1)" in said
    assert f"8,000 Hz ({len(SOUNDS) + 1}), 16,000 Hz (1)" in said
    assert f"1 channel ({len(SOUNDS) + 1}), 2 channels (1)" in said
    assert "0.25 to 0.50 s" in said and f"{0.5 * (len(SOUNDS) + 1.5):.1f} s in all" in said
    assert "1 of 15 recordings without a length in their headers: read to their ends" in said
    assert "1 of 15 recordings made mono" in said
    some = open_source(f"{tmp_path / 'all'}::*.flac", **SMALL)
    assert set(some.base.names) == {"02.flac"}
    for ending in FORMATS:  # each alone, and in a zip
        file = save(tmp_path / f"alone/a{ending}", sound_bytes(X, RATE, ending))
        assert open_source(file, **SMALL).space == source.space
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "all/02.flac", "deep/a.flac")
    assert open_source(tmp_path / "all.zip", **SMALL).base.names[0] == "deep/a.flac"


def test_a_broken_file_is_named_or_left_out(tmp_path: Path) -> None:
    save(tmp_path / "d/a.flac", encoded("FLAC"))
    save(tmp_path / "d/b.wav", wav()[:5000])
    with pytest.raises(DataError, match=r"b\.wav cannot be read: .*declares 4,000 samples, and "
                                        r"2,478 are there .*on_error=skip"):
        open_source(tmp_path / "d", **SMALL)
    source = open_source(tmp_path / "d", on_error="skip", **SMALL)
    assert set(source.base.names) == {"a.flac"} and "left out 1 of 2" in source.notes[0]
    (tmp_path / "d/about.txt").write_text("x")
    notes = open_source(tmp_path / "d", on_error="skip", **SMALL).notes
    assert notes[-1] == "left out 1 file: 1 .txt"


def test_results_are_files_of_the_kind_that_was_given(tmp_path: Path,
                                                           capsys: Any) -> None:
    for who, pitch in (("low", 11), ("high", 5)):
        for i in range(10):
            save(tmp_path / who / f"{i}.flac", sound_bytes(np.sin(np.arange(900) / (pitch + i)) / 3,
                                                           RATE, ".flac"))
    run = latlas.train("cycle-gan", open_pair(tmp_path / "low", tmp_path / "high", **SMALL),
                       out=tmp_path / "run", images=2, width=2, blocks=1, progress=False, threads=1)
    for ending in FORMATS:
        rate = 8000 if ending in (".mp3", ".opus") else 11_025
        save(tmp_path / f"new/of{ending[1:]}{ending}", sound_bytes(X, rate, ending))
    save(tmp_path / "new/deep.WAV", encoded("WAV", "ULAW", np.stack([X, X], 1)))
    assert command(["translate", str(tmp_path / "run"), "--data", str(tmp_path / "new"), "--out",
                    str(tmp_path / "out")]) == 0
    assert "1 of 14 recordings made mono" in capsys.readouterr().out
    made = {p.name: p for p in (tmp_path / "out").iterdir() if p.name != "results.json"}
    assert set(made) == {*(f"of{ending[1:]}{ending}" for ending in FORMATS), "deep.WAV"}
    for name, path in made.items():
        clip, before = (read_sound(p.read_bytes()) for p in (path, tmp_path / "new" / name))
        assert (clip.rate, len(clip.x)) == (before.rate, len(before.x))
        assert clip.kind == ("WAV PCM_16" if ".wav" in name.lower() else before.kind)
    # the run's own choices hold for later data, of another rate and longer
    later = save(tmp_path / "later/a.flac", encoded("FLAC", x=np.tile(X, 3), rate=22_050))
    assert run.open(later.parent, "all").space == run.space.a
