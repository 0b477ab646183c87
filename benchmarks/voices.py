"""One speaker to another, evaluated on the written wav files.

`cycle-gan` learns from recordings `{digit}_{speaker}_{take}.wav` of two speakers; takes 0 … 9 of
every digit are held out (a fifth of 50). The benchmark translates the held-out takes of either
speaker into the other's voice, writes them as `latlas translate` does, and reads the files again.
Two classifiers learn from the real training takes: one the two speakers, one the digits of all
speakers. They are support vector machines on 20 mel cepstra at 20 moments, their mean and spread,
and do not depend on loudness.

Rows beside the translations: real held-out recordings of the target; the same recordings turned
into an image and back by Griffin-Lim; and the untranslated recordings.

    python benchmarks/voices.py fsdd.zip --speakers jackson theo --minutes 60
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import run_arguments, spent, table, trained, write_json
from numpy.typing import NDArray
from scipy.fft import dct
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import latlas
from latlas.data import open_pair
from latlas.data.recordings import picture_of, spectrum
from latlas.data.soundfiles import Clip, read_sound, sound_bytes
from latlas.run import Run
from latlas.verbs.translating import sounded

NAME = re.compile(r"(?P<digit>\d+)_(?P<speaker>\w+)_(?P<take>\d+)\.wav")
#: takes below are held out; as patterns of names those, and the others
HELD, KEPT, LEFT = 10, "?.wav", "??.wav"
#: of the classifiers: mel bands, cepstra, moments, samples of a frame and from one to the next
BANDS, CEPSTRA, MOMENTS, FRAME, HOP = 26, 20, 20, 256, 64
Key = tuple[int, str, int]  # digit, speaker, take


def main() -> None:
    """Train or read the run, translate both ways, evaluate."""
    options = arguments()
    said = recordings(options.data)
    classifiers = SpeechClassifiers(said, options.speakers)
    a, b = options.speakers
    source = open_pair(*(f"{options.data}::*_{name}_{LEFT}" for name in (a, b)))
    run = trained("cycle-gan", "cycle-gan", source, options, split="all")
    rows = [classifiers.row(f"{there} to {here}", here, heard, [k[0] for k in keys])
            for to, there, here in (("B", a, b), ("A", b, a))
            for keys, heard in [translated(run, options.data, there, to)]]
    rows += [row for name in (a, b)
             for row in controls(said, classifiers, name, run, options.speakers)]
    minutes, images = spent(run)
    print(f"{images:,} windows of each speaker in {minutes:.1f} minutes\n")
    print(table(["", "recordings", "called the target", "digits read"],
                [[name, f"{n}", f"{of:.1%}", f"{right:.1%}"] for name, n, of, right in rows]))
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": rows, "minutes": minutes, "images": images})


def recordings(path: Path) -> dict[Key, Clip]:
    """Every recording of a zip."""
    with zipfile.ZipFile(path) as archive:
        named = {n: NAME.fullmatch(Path(n).name) for n in archive.namelist()}
        return {(int(m["digit"]), m["speaker"], int(m["take"])): read_sound(archive.read(n))
                for n, m in named.items() if m}


def translated(run: Path, data: Path, speaker: str, to: str) -> tuple[list[Key], list[Clip]]:
    """The held-out recordings of a speaker, translated, written and read again."""
    folder = run / f"to-{to}"
    latlas.translate(Run(run, device="cpu"), f"{data}::*_{speaker}_{KEPT}", to=to,
                     out=f"{folder}/")
    files = sorted(folder.glob("*.wav"))
    print(f"{folder}: {len(files)} recordings of {speaker} in the other voice", flush=True)
    keys = [key_of(f.name) for f in files]
    return keys, [read_sound(f.read_bytes()) for f in files]


def key_of(name: str) -> Key:
    """What a file says by its name, whatever lies before it."""
    digit, speaker, take = Path(name).stem.split("_")[-3:]
    return int(digit), speaker, int(take)


def controls(said: dict[Key, Clip], classifiers: SpeechClassifiers, target: str, run: Path,
             speakers: list[str]) -> Iterable[tuple[str, int, float, float]]:
    """Real ones of the target, the same through an image, and those of the other as they are."""
    kind = Run(run).space.a.sound
    other = speakers[1 - speakers.index(target)]
    for name, who in ((f"{target}, real", target), (f"{other}, unchanged", other)):
        clips = held_out(said, who)
        yield classifiers.row(f"{name}, as {target}", target, clips.values(), [k[0] for k in clips])
    clips = held_out(said, target)
    again = [read_sound(sound_bytes(c.x, c.rate)) for c in
             (sounded(picture_of(c, kind), kind, c) for c in clips.values())]
    yield classifiers.row(f"{target}, Griffin-Lim", target, again, [k[0] for k in clips])


def held_out(said: dict[Key, Clip], speaker: str, held: bool = True) -> dict[Key, Clip]:
    """A speaker's recordings that are held out, or the others."""
    return {k: c for k, c in said.items() if k[1] == speaker and (k[2] < HELD) == held}


# ------------------------------------------------------------------------------ classifiers

class SpeechClassifiers:
    """Who speaks, and which digit."""

    def __init__(self, said: dict[Key, Clip], speakers: list[str]) -> None:
        everyone = sorted({speaker for _, speaker, _ in said})
        known = {k: features(c) for who in everyone for k, c in held_out(said, who, False).items()}
        self.digit, self.speaker = classifier(), classifier()
        self.digit.fit(np.stack(list(known.values())), [k[0] for k in known])
        two = {k: x for k, x in known.items() if k[1] in speakers}
        self.speaker.fit(np.stack(list(two.values())), [k[1] for k in two])
        right = {who: self.row("", who, held.values(), [k[0] for k in held])[3]
                 for who in everyone for held in [held_out(said, who)]}
        print("digits read of real held-out recordings: " + ", ".join(
            f"{who} {share:.0%}" for who, share in right.items()), flush=True)

    def row(self, name: str, target: str, clips: Iterable[Clip],
            digits: list[int]) -> tuple[str, int, float, float]:
        """Name, recordings, share that is called the target, share whose digit is read."""
        x = np.stack([features(clip) for clip in clips])
        return (name, len(x), float((self.speaker.predict(x) == target).mean()),
                float((self.digit.predict(x) == digits).mean()))


def classifier() -> Any:
    """A support vector machine on standardised features."""
    return make_pipeline(StandardScaler(), SVC(C=10))


def features(clip: Clip) -> NDArray[np.float64]:
    """Cepstra at evenly spaced moments, their mean and their spread, whatever the loudness."""
    level = np.sqrt(np.square(clip.x).mean())
    power = np.abs(spectrum(clip.x / max(level, 1e-12), FRAME, HOP)) ** 2
    cepstra = dct(np.log(filters(clip.rate) @ power + 1e-2), axis=0, norm="ortho")[:CEPSTRA]
    at = np.linspace(0, cepstra.shape[1] - 1, MOMENTS)
    moments = [np.interp(at, np.arange(cepstra.shape[1]), row) for row in cepstra]
    return np.concatenate([np.ravel(moments), cepstra.mean(1), cepstra.std(1)])


def filters(rate: int, low: float = 100.0) -> NDArray[np.float64]:
    """Triangles that are evenly wide on the mel scale, (bands, bins)."""
    ends = 2595 * np.log10(1 + np.array([low, rate / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    left, middle, right = (edges[i:i + BANDS, None] for i in range(3))
    tones = np.fft.rfftfreq(FRAME, 1 / rate)
    return np.clip(np.minimum((tones - left) / (middle - left), (right - tones) / (right - middle)),
                   0, None)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], ["cycle-gan"], minutes=60.0,
                           out="runs/voices")
    parser.add_argument("data", type=Path, help="a zip of {digit}_{speaker}_{take}.wav (fsdd.zip)")
    parser.add_argument("--speakers", nargs=2, default=["jackson", "theo"], metavar=("A", "B"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
