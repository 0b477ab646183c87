"""One speaker to another, without pairs: cycle-gan learns from two heaps of recordings.

    python examples/one_speaker_to_another.py                 # vowels of two synthetic voices
    python examples/one_speaker_to_another.py hers/ his/ --minutes 60

Writes held-out recordings of the first speaker as wav files in the voice of the second, a sheet of
spectra (input | output), and the median pitch before and after.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import latlas
from latlas.data import open_pair
from latlas.data.soundfiles import Clip, sound_bytes
from latlas.verbs.translating import open_recordings

#: pitch in Hz and how long the throat is (the formants' scale)
LOW, HIGH = (110.0, 1.0), (210.0, 1.2)
#: formants in Hz of four vowels
VOWELS = ((700, 1200), (300, 2100), (350, 800), (500, 1700))
RATE = 4000
#: of recordings, and of the vowels, so that they take seconds
QUICK = {"width": 8, "blocks": 2, "learning_rate": 1e-3}
SMALL = {"n_fft": 128, "hop": 32, "window": 32}


def main() -> None:
    """Train on two heaps, translate recordings that were never seen."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        sides = args.folders or [synthetic(Path(folder) / name, *voice, seed=seed) for seed, (
            name, voice) in enumerate((("low", LOW), ("high", HIGH)))]
        source = open_pair(*sides, **({} if args.folders else SMALL))
        how = ({"minutes": args.minutes} if args.folders
               else {"images": int(args.images), **QUICK})
        run = latlas.train("cycle-gan", source, out=args.run, **how)
        held_out = open_recordings(run, None, "test")
        written = latlas.translate(run, split="test", out=f"{args.out}/").files
        pitches = [np.median([pitch(clip) for clip in clips]) for clips in (
            [held_out.clip(i) for i in range(len(held_out))], latlas.translate(run, split="test"))]
    print(f"wrote {written['written']} recordings to {args.out} and {written['sheet']}; median "
          f"pitch {pitches[0]:.0f} Hz before, {pitches[1]:.0f} Hz after")


def synthetic(folder: Path, low: float, throat: float, *, seed: int, n: int = 60) -> Path:
    """A folder of two vowels each, one after the other, of one voice."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(n):
        seconds = rng.uniform(0.2, 0.4)
        first, last = rng.choice(4, 2, replace=False)
        sound = spoken(seconds, low * rng.uniform(0.93, 1.07), throat, first, last)
        (folder / f"{i:02}.wav").write_bytes(sound_bytes(sound, RATE))
    return folder


def spoken(seconds: float, low: float, throat: float, first: int, last: int) -> np.ndarray:
    """Harmonics of a pitch that falls by a tenth, as loud as the formants let them through."""
    t = np.arange(round(seconds * RATE)) / RATE
    share = t / seconds
    formants = throat * np.array([np.interp(share, (0.3, 0.7), ends) for ends in zip(
        VOWELS[first], VOWELS[last], strict=True)])
    turns = 2 * np.pi * np.cumsum(low * (1 - 0.1 * share)) / RATE
    x = np.zeros_like(t)
    for k in range(1, int(RATE / 2 / low)):
        through = 1 / (1 + ((k * low - formants) / 80) ** 2)
        x += through.sum(0) / np.sqrt(k) * np.sin(k * turns)
    return 0.3 * x / np.abs(x).max() * np.sin(np.pi * share) ** 0.5


def pitch(clip: Clip, low: float = 60.0, high: float = 400.0) -> float:
    """Hz, where the recording is most like itself a period later."""
    n = 2 * len(clip.x)
    alike = np.fft.irfft(np.abs(np.fft.rfft(clip.x, n)) ** 2)
    first, last = int(clip.rate / high), int(clip.rate / low)
    return clip.rate / (first + int(np.argmax(alike[first:last])))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="two folders or zips of wav files; default: "
                                                   "synthetic vowels")
    parser.add_argument("--minutes", type=float, default=60.0, help="to train on your own")
    parser.add_argument("--images", type=float, default=2_000, help="to train on, of the vowels")
    parser.add_argument("--run", type=Path, help="keep the trained model in this folder")
    parser.add_argument("--out", type=Path, default=Path("runs/other-speaker"))
    args = parser.parse_args()
    if len(args.folders) not in (0, 2):
        parser.error("name two places of recordings, or none")
    return args


if __name__ == "__main__":
    main()
