"""Files of sound: read by libsndfile (package soundfile), their lengths checked, and written.

A header may declare no length (of a stream: a size of 0, or near 2³¹, 2³² or 2⁶³): then all samples
that are there are read. Any other declared length must be there.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data.dataset import available_memory

#: what libsndfile calls the files that are written, by their endings; and what else is read: wav
#: files with an extended header, or of NIST
FORMATS = {".wav": "WAV", ".wave": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG",
           ".opus": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF", ".au": "AU",
           ".w64": "W64", ".rf64": "RF64", ".caf": "CAF"}
ALSO = ("WAVEX", "NIST")
Samples = NDArray[np.float64]
LOWEST, HIGHEST = 1000, 400_000  # samples a second
BLOCK, SMALL = 1 << 18, 1 << 12  # numbers decoded at a time; where damage loses a block
MARGIN = 16  # bytes after the samples that are none and not worth a word
COPIES = 4  # of a recording that are in memory at a time
LOUDEST = 1e30  # of floats
FULL = 32767  # of 16 bits
#: bytes of a sample, of encodings that have a fixed number
WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
          "ULAW": 1, "ALAW": 1}
#: of files made of chunks: how a chunk's head is packed, where the first one is, what chunks are
#: aligned to, bytes that the size of the samples' chunk counts and that are none
LAYOUTS = {b"RIFF": ("<4sI", 12, 2, 0), b"RIFX": (">4sI", 12, 2, 0), b"RF64": ("<4sI", 12, 2, 0),
           b"BW64": ("<4sI", 12, 2, 0), b"FORM": (">4sI", 12, 2, 8), b"caff": (">4sq", 8, 1, 4),
           b"riff": ("<16sq", 40, 8, 0)}
WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
LARGE = (b"RF64", b"BW64")  # whose sizes of 64 bits are in a chunk of their own
#: chunks that tell how samples are packed; others, which may be damaged, are not looked at
NEEDED = (b"fmt ", b"fact", b"ds64", b"COMM", b"FVER", b"desc", b"kuki", b"pakt")
#: sizes that stand for an unknown one, of 32 bits and of 64 bits
UNKNOWN, UNKNOWN_64 = 0x7E000000, 1 << 62
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


@dataclass(frozen=True)
class Extent:
    """Bytes of samples: as the header declares (``None``: it does not) and that are there; and
    whether more follow that are not read."""

    declared: int | None = None
    present: int = 0
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
    data, extent = _measured(data)
    with _opened(data, extent) as file:
        x, problem = _decoded(file)
        declared = _declared(file, data)
        if problem or (declared or 0) > len(x):
            raise _cut_off(declared, len(x), more=problem)
        if not len(x):
            raise DataError("it holds no samples")
        if not (np.abs(x) < LOUDEST).all():
            raise DataError(f"it holds NaN, infinity, or samples beyond {LOUDEST:g}")
        return Clip(x, file.samplerate, file.channels, f"{file.format} {file.subtype}",
                    declared is None and extent.declared is None, extent.surplus)


def _opened(data: bytes, extent: Extent) -> _Stream:
    """What libsndfile makes of it; DataError if that is nothing, or samples are missing."""
    declared, present = extent.declared or 0, extent.present
    try:
        file = _Stream(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        if declared > present:
            raise _cut_off(declared, present, "bytes of samples") from None
        raise DataError(_reason(error)) from None
    if file.format not in (*FORMATS.values(), *ALSO):
        raise DataError(f"a file of the kind {file.format} is not read")
    if not LOWEST <= file.samplerate <= HIGHEST:
        raise DataError(f"its header names {file.samplerate:,} samples a second; {LOWEST:,} to "
                        f"{HIGHEST:,} can be read")
    width = WIDTHS.get(file.subtype, 0) * file.channels
    if declared // (width or 1) > present // (width or 1):
        raise _cut_off(declared // (width or 1), present // (width or 1),
                       "samples" if width else "bytes of samples")
    return file


def _decoded(file: _Stream) -> tuple[Samples, str]:
    """The mean of the channels, block by block: nothing is made room for that is not there. And
    what stopped it, if anything did."""
    room = available_memory() // (COPIES * 8)
    size = SMALL if file.format == "FLAC" else BLOCK
    step, blocks, n = max(1, size // file.channels), [np.zeros(0)], 0
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            while len(block := file.read(step, dtype="float64", always_2d=True)):
                blocks.append(block.mean(axis=1))
                n += len(block)
                if n > room:
                    raise DataError(f"it is longer than memory holds: over {room:,} samples")
    except soundfile.LibsndfileError as error:
        return np.concatenate(blocks), _reason(error)
    return np.concatenate(blocks), ""


def _declared(file: _Stream, data: bytes) -> int | None:
    """Samples that a compressed file declares; ``None`` if it does not. DataError for an Ogg file
    whose last page is cut off: nothing else says how long one is."""
    if file.format == "OGG":
        last = data.rfind(b"OggS")
        table = data[last + 27:last + 27 + data[last + 26]] if len(data) > last + 26 else b""
        if not table or last + 27 + len(table) + sum(table) > len(data):
            raise DataError(f"its last page is cut off; {file.frames:,} samples are before it")
        return file.frames if data[last + 5] & 4 else None  # the mark of the end
    if file.format == "MP3":  # whose length is a guess without the head of Xing or LAME
        tag = int.from_bytes(data[6:10], "big") if data[:3] == b"ID3" else -10
        tag = sum((tag >> 8 * k & 127) << 7 * k for k in range(4)) if tag > 0 else tag
        head = data[tag + 10:tag + 266]
        return file.frames if b"Xing" in head or b"Info" in head else None
    if file.format == "NIST":
        count = re.search(rb"sample_count -i (\d+)", data[:1024])
        return int(count[1]) if count else None
    return file.frames if file.format == "FLAC" and file.frames < UNKNOWN_64 else None


def _measured(data: bytes) -> tuple[bytes, Extent]:
    """How long the samples of a file of chunks are, and the file in a form that libsndfile reads:
    without the chunks that are not needed, some of odd length without their pad byte, and with its
    length where that was unknown."""
    magic = data[:4]
    if magic == b".snd" and len(data) >= 12:
        start, size = struct.unpack_from(">II", data, 4)
        return data, Extent(None if size >= UNKNOWN else size, max(0, len(data) - start))
    if magic == b"OggS":  # of several streams the first is read
        return data, Extent(surplus=data.count(b"OggS\0\2") > 1)
    if magic not in LAYOUTS:
        return data, Extent()
    form, at, align, _ = LAYOUTS[magic]
    head, pieces, large = struct.calcsize(form), [data[:at]], 0
    while at + head <= len(data):
        name, size = struct.unpack_from(form, data, at)
        size -= head if magic == b"riff" else 0  # which counts its head
        body = at + head
        if name[:4] in (b"data", b"SSND"):
            whole = large if size == 0xFFFFFFFF and magic in LARGE else size
            return _ended(data, pieces, (name, whole, at, body))
        if size < 0:
            break
        if name == b"ds64" and body + 16 <= len(data):
            large = struct.unpack_from("<Q", data, body + 8)[0]
        end = body + size
        gap = -size % align
        missing = gap and magic != b"riff" and data[end:end + 1].isalnum()  # the next one's name
        if name[:4] in NEEDED:
            pieces += [data[at:end], bytes(gap)]
        at = end if missing else end + gap
    raise DataError("it is cut off before its samples, or no file of sound")


def _ended(data: bytes, pieces: list[bytes], chunk: tuple[bytes, int, int, int]) -> tuple[
        bytes, Extent]:
    """See :func:`_measured`, of the chunk of samples: its name, size, place and where they are."""
    name, size, at, body = chunk
    magic, present = data[:4], len(data) - body
    form, _, _, extra = LAYOUTS[magic]
    limit = UNKNOWN_64 if form[2:].endswith("q") or magic in LARGE else UNKNOWN
    unknown = size > max(present, limit - 1) or (size <= 0 and not _is_chunk(data, body, form))
    end = body + max(0, size)
    after = [at for at in (end, end + 1) if _is_chunk(data, at, form)]
    surplus = not unknown and magic != b"riff" and end + MARGIN < len(data) and (
        not after or data[after[0]:after[0] + 4] == name[:4])
    size = present if unknown else size
    if magic == b"BW64":
        pieces[0] = b"RF64" + pieces[0][4:]
    if magic in LARGE and unknown and size <= 0xFFFFFFFF:
        pieces[0] = b"RIFF" + pieces[0][4:]
    counted = size + (body - at if magic == b"riff" else 0)
    counted = min(counted, 0xFFFFFFFF) if form.endswith("I") else counted
    rest = data[body:end] if magic in WAVES and not unknown else data[body:]
    data = b"".join([*pieces, struct.pack(form, name, counted), rest])
    declared = None if unknown else max(0, size - extra)
    return data, Extent(declared, max(0, present - extra), surplus)


def _is_chunk(data: bytes, at: int, form: str) -> bool:
    """Whether a chunk that ends within the file, or the file's end, is here."""
    if at + struct.calcsize(form) > len(data):
        return at >= len(data)
    name, size = struct.unpack_from(form, data, at)
    text = name[:4].decode("latin-1")
    return text.isascii() and text.isprintable() and 0 <= size <= len(data) - at


def _cut_off(declared: int | None, present: int, what: str = "samples",
             more: str = "") -> DataError:
    said = f"its header declares {declared:,} {what}, and" if declared is not None else "only"
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
    values, buffer = np.rint(np.clip(x, -1, 1) * FULL).astype(np.int16), io.BytesIO()
    encoding = "OPUS" if ending == ".opus" and rate in OPUS_RATES else None
    try:
        soundfile.write(buffer, values, rate, format=FORMATS[ending], subtype=encoding)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{rate:,} samples a second cannot be written as {ending}: "
                        f"{_reason(error)}") from None
    return buffer.getvalue()
