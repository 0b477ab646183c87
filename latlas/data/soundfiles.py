"""Files of sound: read by libsndfile (package soundfile), their lengths checked, and written.

A header may declare no length (of a stream: a size of 0, or near 2³¹, 2³² or 2⁶³): then all samples
that are there are read. Any other declared length must be there.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data import dataset
from latlas.data.streams import claim

#: what libsndfile calls the files that are written, by their endings; and what else is read: wav
#: files with an extended header, or of NIST
FORMATS = {".wav": "WAV", ".wave": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG",
           ".opus": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF", ".au": "AU",
           ".w64": "W64", ".rf64": "RF64", ".caf": "CAF"}
ALSO = ("WAVEX", "NIST")
Samples = NDArray[np.float64]
LOWEST, HIGHEST = 1000, 400_000  # samples a second
BLOCK, SMALL = 1 << 18, 1 << 12  # numbers decoded at a time; of FLAC, where damage loses a block
COPIES = 4  # of a recording that are in memory at a time
LOUDEST = 1e30  # of floats
#: bytes of a sample, of encodings that have a fixed number
WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
          "ULAW": 1, "ALAW": 1}
#: of files made of chunks: how a chunk's head is packed, where the first one is, what chunks are
#: aligned to, bytes that the size of the samples' chunk counts and that are none
LAYOUTS = {b"RIFF": ("<4sI", 12, 2, 0), b"RIFX": (">4sI", 12, 2, 0), b"RF64": ("<4sI", 12, 2, 0),
           b"BW64": ("<4sI", 12, 2, 0), b"FORM": (">4sI", 12, 2, 8), b"caff": (">4sq", 8, 1, 4),
           b"riff": ("<16sq", 40, 8, 0)}
LARGE = (b"RF64", b"BW64")  # whose sizes of 64 bits are in a chunk of their own
#: chunks that tell how samples are packed; others, which may be damaged, are not looked at
NEEDED = (b"fmt ", b"fact", b"ds64", b"COMM", b"FVER", b"desc", b"kuki", b"pakt")
#: sizes that stand for an unknown one, of 32 bits and of 64 bits; the largest of 32 bits
UNKNOWN, UNKNOWN_64, LARGEST = 0x7E000000, 1 << 62, 0xFFFFFFFF
MARGIN = 16  # bytes after the samples that are none and not worth a word
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)


@dataclass(frozen=True)
class Clip:
    """A recording.

    Attributes:
        x: the mean of its channels, (n,) float64, full scale −1 … 1.
        rate: samples a second.
        kind: format and encoding, ``WAV PCM_16``.
        unbounded: its header declares no length.
        surplus: after the samples that are read there are bytes of no meaning, or others.
    """

    x: Samples
    rate: int
    channels: int = 1
    kind: str = "WAV PCM_16"
    unbounded: bool = False
    surplus: bool = False


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """Read from its start to its end: seeking fails in files whose end is unknown or missing."""

    def seekable(self) -> bool:
        return False


def read_sound(data: bytes) -> Clip:
    """The bytes of a wav, FLAC, Ogg, MP3, AIFF, AU, W64, RF64 or CAF file.

    Raises:
        DataError: damaged, cut off, empty, of an absurd rate, or holding NaN or infinity; it does
            not name the file.
    """
    data, declared, present, surplus = _repaired(data)
    try:
        file = _Stream(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise DataError(_reason(error)) from None
    with file:
        if file.format not in (*FORMATS.values(), *ALSO):
            raise DataError(f"a file of the kind {file.format} is not read")
        if not LOWEST <= file.samplerate <= HIGHEST:
            raise DataError(f"its header names {file.samplerate:,} samples a second; {LOWEST:,} to "
                            f"{HIGHEST:,} can be read")
        width = WIDTHS.get(file.subtype, 0) * file.channels
        if declared is not None and declared // (width or 1) > present // (width or 1):
            raise _cut_off(declared // (width or 1), present // (width or 1),
                           "samples" if width else "bytes of samples")
        x, problem = _decoded(file)
        count = _frames(file, data)
        if problem or (count or 0) > len(x):
            raise _cut_off(count, len(x), more=problem)
        if not len(x):
            raise DataError("it holds no samples")
        if not (np.abs(x) < LOUDEST).all():
            raise DataError(f"it holds NaN, infinity, or samples beyond {LOUDEST:g}")
        return Clip(x, file.samplerate, file.channels, f"{file.format} {file.subtype}",
                    declared is None and count is None, surplus)


def _decoded(file: _Stream) -> tuple[Samples, str]:
    """The mean of the channels, block by block: nothing is made room for that is not there. And
    what stopped it, if anything did."""
    step = max(1, (SMALL if file.format == "FLAC" else BLOCK) // file.channels)
    blocks, size, free, problem = [np.zeros(0)], 0, dataset.available_memory(), ""
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            while len(block := file.read(step, dtype="float64", always_2d=True)):
                blocks.append(block.mean(axis=1))
                size += blocks[-1].nbytes
                claim(COPIES * size, "it is too long: a part of it", free=free)
    except soundfile.LibsndfileError as error:
        problem = _reason(error)
    return np.concatenate(blocks), problem


def _frames(file: _Stream, data: bytes) -> int | None:
    """Samples that a file declares by other means than bytes; ``None`` if it does not. DataError
    for an Ogg file whose last page is cut off: nothing else says how long one is."""
    says = file.format == "FLAC" and file.frames < UNKNOWN_64
    if file.format == "OGG":
        page = data[data.rfind(b"OggS"):]
        sizes = page[27:27 + page[26]] if len(page) > 26 else b""
        if not sizes or 27 + len(sizes) + sum(sizes) > len(page):
            raise DataError(f"its last page is cut off; {file.frames:,} samples are before it")
        says = page[5] & 4 != 0  # the mark of the end
    elif file.format == "MP3":  # whose length is a guess without the head of Xing or LAME
        tag = 0
        if data[:3] == b"ID3":  # 7 bits in each byte of its size
            tag = 10 + sum((byte & 127) << 7 * k for k, byte in enumerate(data[9:5:-1]))
        says = re.search(b"Xing|Info", data[tag:tag + 256]) is not None
    elif file.format == "NIST":
        count = re.search(rb"sample_count -i (\d+)", data[:1024])
        return int(count[1]) if count else None
    return file.frames if says else None


def _repaired(data: bytes) -> tuple[bytes, int | None, int, bool]:
    """A file in a form that libsndfile reads; bytes of samples that the header declares (``None``:
    it does not) and that are there; and whether more follow that are not read.

    One of chunks gets its true length and loses the chunks that are not needed, of which some of
    odd length lack their pad byte.
    """
    magic = data[:4]
    if magic == b".snd" and len(data) >= 12:
        start, size = struct.unpack_from(">II", data, 4)
        return data, None if size >= UNKNOWN else size, max(0, len(data) - start), False
    if magic not in LAYOUTS:  # of several Ogg streams the first is read
        return data, None, 0, magic == b"OggS" and data.count(b"OggS\0\2") > 1
    form, first, align, extra = LAYOUTS[magic]
    head, pieces, large = struct.calcsize(form), [data[:first]], 0
    for name, body, size in _chunks(data):
        if name[:4] in (b"data", b"SSND"):
            break
        if name == b"ds64":
            large = int.from_bytes(data[body + 8:body + 16], "little")
        if name[:4] in NEEDED:
            pieces += [data[body - head:body + size], bytes(-size % align)]
    else:
        raise DataError("it is cut off before its samples, or no file of sound")
    size = large if size == LARGEST and magic in LARGE else size
    end, present = body + max(0, size), len(data) - body
    limit = UNKNOWN_64 if form.endswith("q") or magic in LARGE else UNKNOWN
    unknown = size > max(present, limit - 1) or (size <= 0 and not _is_chunk(data, body))
    after = next((at for at in (end, end + 1) if _is_chunk(data, at)), None)
    surplus = not unknown and end + MARGIN < len(data) and (
        after is None or data[after:after + 4] == name[:4])
    if magic in LARGE:
        pieces[0] = (b"RIFF" if unknown and present <= LARGEST else b"RF64") + pieces[0][4:]
    there = present if unknown else min(size, present)
    counted = there + (head if magic == b"riff" else 0)
    counted = counted if form.endswith("q") else min(counted, LARGEST)
    rest = data[body:] if unknown or magic in (b"FORM", b"caff") else data[body:end]
    return (b"".join([*pieces, struct.pack(form, name, counted), rest]),
            None if unknown else max(0, size - extra), max(0, present - extra), surplus)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of the contents of each chunk, up to one whose size is none."""
    magic, size = data[:4], 0
    form, at, align, _ = LAYOUTS[magic]
    head = struct.calcsize(form)
    while at + head <= len(data) and size >= 0:
        name, size = struct.unpack_from(form, data, at)
        size -= head if magic == b"riff" else 0  # which counts its head
        yield name, at + head, size
        at += head + size
        gap = -size % align
        if not (gap and magic != b"riff" and data[at:at + 1].isalnum()):  # the next one's name
            at += gap


def _is_chunk(data: bytes, at: int) -> bool:
    """Whether a chunk that ends within the file, or the file's end, is here."""
    form = LAYOUTS[data[:4]][0]
    if at + struct.calcsize(form) > len(data):
        return at >= len(data)
    name, size = struct.unpack_from(form, data, at)
    text = name[:4].decode("latin-1")
    return text.isascii() and text.isprintable() and 0 <= size <= len(data) - at


def _cut_off(declared: int | None, present: int, what: str = "samples",
             more: str = "") -> DataError:
    said = "only" if declared is None else f"its header declares {declared:,} {what}, and"
    return DataError(f"it is cut off or damaged: {said} {present:,} are there"
                     f"{f' ({more})' if more else ''}")


def _reason(error: soundfile.LibsndfileError) -> str:
    text = str(error.error_string).strip().rstrip(".")
    if "SF_INFO" in text:
        return "its header names no rate, or no number of channels, that there is"
    return text.removeprefix("Error : ")


def resampled(x: Samples, rate: int, to: int) -> Samples:
    """Samples (n,) at another rate, ``ceil(n · to / rate)`` of them."""
    if rate == to:
        return x
    n, y = -(-len(x) * to // rate), soxr.resample(x, rate, to)
    return np.pad(y[:n], (0, max(0, n - len(y))))


def sound_bytes(x: Samples, rate: int, ending: str = ".wav") -> bytes:
    """Samples (n,), full scale −1 … 1, as a file of this ending: of 16 bits, or compressed.

    Raises:
        DataError: a rate that this kind of file does not have.
    """
    values, buffer = np.rint(np.clip(x, -1, 1) * 32767).astype(np.int16), io.BytesIO()
    encoding = "OPUS" if ending == ".opus" and rate in OPUS_RATES else None
    try:
        soundfile.write(buffer, values, rate, format=FORMATS[ending], subtype=encoding)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{rate:,} samples a second cannot be written as {ending}: "
                        f"{_reason(error)}") from None
    return buffer.getvalue()
