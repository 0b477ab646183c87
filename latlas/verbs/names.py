"""What the file of an example is called: a function of the example's own name, and one to one.

Folders, spaces and letters of any script stay as they are. A name without the ending gets it
behind (``a.jpg`` becomes ``a.jpg.png``). What a file system cannot hold is percent-encoded, as is a
percent sign, so that ``urllib.parse.unquote`` gives the name back. Four marks are no encodings:
``%.`` (the name had no ending of a file), ``%u`` (a lone surrogate), ``%~2`` (the second example of
that name) and ``%-`` before the hash of a name that was too long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from latlas.data.files import FILMS, PICTURES, SOUNDS

#: bytes of a file's name, and of one with its folders, at most
LONGEST, LONGEST_PATH = 255, 1024
KNOWN = PICTURES | FILMS | SOUNDS
#: no file system of Windows holds these; a slash divides folders
RESERVED = re.compile(r'[\x00-\x1f\x7f%<>:"|?*\\]')
DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9]) *(\.|$)", re.IGNORECASE)


def file_names(names: Iterable[object], ending: str = ".png") -> list[str]:
    """Relative names of files, one for each example, all different.

    >>> file_names(["a b.png", "a_b.png", "b/x.jpg", "../x.png", "x", "x"])
    ['a b.png', 'a_b.png', 'b/x.jpg.png', '%2E%2E/x.png', 'x%.png', 'x%~2%.png']
    """
    times: Counter[str] = Counter()
    result = []
    for name in map(str, names):
        times[name] += 1
        result.append(file_name(name, ending, times[name]))
    return result


def file_name(name: str, ending: str, time: int = 1) -> str:
    """That of one example, of those with this very name the first, second, …"""
    *folders, last = name.split("/")
    stem = last[:-len(ending)]
    if last[-len(ending):].lower() == ending:
        end = last[len(stem):]
        if _suffix(stem) in KNOWN and _suffix(stem) != ending:  # that of the name without it
            at = stem.rindex(".")
            stem = f"{_escaped(stem[:at])}%2E{stem[at + 1:]}"
        else:
            stem = _escaped(stem)
    else:
        stem, end = _escaped(last), ending if _suffix(last) in KNOWN else f"%{ending}"
    if DEVICES.match(stem + end):
        stem = f"%{ord(stem[0]):X}{stem[1:]}"
    repeat = f"%~{time}" if time > 1 else ""
    parts = [*(_folder(part, ending) for part in folders), stem + repeat + end]
    for i in range(len(parts) - 1):  # an empty folder: the slash is one of the name
        if not parts[i]:
            parts[i + 1], parts[i] = "%2F" + parts[i + 1], ""
    short = [_shortened(part, part, "" if i + 1 < len(parts) else ending)
             for i, part in enumerate(parts) if part]
    path = "/".join(short)
    return path if _size(path) <= LONGEST_PATH else _shortened(
        short[-1], "/".join(parts), ending, always=True)


def same_but_for_case(names: Sequence[str]) -> tuple[str, str] | None:
    """Two that some file systems take for one, the first there are."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(name.casefold(), name)) != name:
            return other, name
    return None


def _folder(part: str, ending: str) -> str:
    """A folder's name, which is never that of a file beside it."""
    if part in (".", ".."):
        return "%2E" * len(part)
    text = _escaped(part)
    if text.endswith((".", " ")):  # Windows drops them
        text = f"{text[:-1]}%{ord(text[-1]):X}"
    if _suffix(text) in (ending, ".json"):
        at = text.rindex(".")
        text = f"{text[:at]}%2E{text[at + 1:]}"
    return f"%{ord(text[0]):X}{text[1:]}" if DEVICES.match(text) else text


def _escaped(text: str) -> str:
    text = RESERVED.sub(lambda m: f"%{ord(m[0]):02X}", text)
    if text.startswith(".") and ".part" in text:  # as files are called while they are written
        text = "%2E" + text[1:]
    return re.sub("[\ud800-\udfff]", lambda m: (  # bytes that are no UTF-8, or no text at all
        f"%{ord(m[0]) - 0xDC00:02X}" if 0xDC80 <= ord(m[0]) <= 0xDCFF else
        f"%u{ord(m[0]):04X}"), text)


def _shortened(part: str, whole: str, ending: str, always: bool = False) -> str:
    """A part of a name, if too long its head and a hash of the whole."""
    if _size(part) <= LONGEST and not always:
        return part
    tail = f"%-{blake2b(whole.encode(), digest_size=16).hexdigest()}{ending}"
    head = part.encode()[:LONGEST - _size(tail)].decode("utf-8", "ignore")
    return head + tail


def _suffix(name: str) -> str:
    dot, end = name.rpartition(".")[1:]
    return dot + end.lower() if dot else ""


def _size(text: str) -> int:
    return len(text.encode())
