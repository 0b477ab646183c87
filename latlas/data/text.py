"""Text files of rows (CSV and its relatives) in any dialect, exactly as they say it.

How a file is written (separator, quotes, header, encoding) is read off that file alone; what it
leaves open is refused, or guessed and said, with the option that decides it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import DataError, say_option

if TYPE_CHECKING:
    from polars import DataFrame

SEPARATORS = ",;\t|"
NAMED_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|",
                    "space": " "}
#: what stands for a gap, in small letters
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-", "--", "#null!", "nil",
           "-nan", "nat", "<null>", "#n/a n/a", "#value!", "#div/0!", "#ref!", "#num!", "#name?",
           "n.a.", "0000-00-00", "0000-00-00 00:00:00")
#: lines by which the separator and the header are told
SAMPLE_LINES = 1000
ROWS_AT_ONCE = 20_000
UNNAMED = "unnamed "
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NUMBER = re.compile(NUMBER)
#: a line of two values and more, the first a number, between blanks; no thousands, no other mark
_BLANK_NUMBERS = re.compile(rf"\s*{NUMBER}[ \t]+(?![^,;|]*[,;|])(?!\d{{3}}\s*$)\S")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{4}[-/]\d\d$|\d{1,2}:\d\d")
#: a value between quotes, of each kind
_QUOTED = {q: re.compile(rf"(?:^|(?<=[,;\t|\r\n])) *{q}(?:[^{q}]|{q}{q})*{q} *(?=[,;\t|\r\n]|$)")
           for q in "\"'"}


@dataclass(frozen=True)
class HowToRead:
    """How a file of rows is written; what is ``None`` is told from the file.

    Attributes:
        separator: between values: one character, or ``tab``, ``semicolon``, ``comma``, ``pipe``.
        header: whether the first line names the columns.
        decimal: ``,`` or ``.``, the mark before the decimals of a text file's numbers.
        encoding: of a text file (``utf-8``, ``cp1252``, ``utf-16``, …).
        missing: more words (or numbers) that stand for a gap, separated by commas.
        table: of an SQLite file, the table to read; ``query``: the SELECT to read instead.
    """

    separator: str | None = None
    header: bool | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: str | None = None
    table: str | None = None
    query: str | None = None


def read_text(data: bytes, name: str, suffix: str, how: HowToRead) -> tuple[
        DataFrame, bool, tuple[str, ...]]:
    """Every value as text, whether the first line names the columns, and notes."""
    import polars as pl

    notes: list[str] = []
    data = _as_utf8(data, name, how.encoding)
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")
    separator, quote, skip = _sniff(list(islice(text, SAMPLE_LINES)), name, suffix, how, notes)
    text.seek(0)
    rows = _rows(text, name, separator, quote, skip, notes)
    block, blocks = list(islice(rows, SAMPLE_LINES)), []
    header = _has_header(block, notes) if how.header is None else how.header
    if len(block) <= header:
        raise DataError(f"{name} has no rows")
    names = names_of(block.pop(0), notes) if header else [f"x{i}" for i in range(len(block[0]))]
    names[0] = names[0].lstrip("# ") or names[0]  # of a last comment that names columns
    table = None if skip else _plain(data, names, header, separator, quote)
    while block and table is None:
        blocks.append(pl.DataFrame(block, dict.fromkeys(names, pl.String), orient="row"))
        block = list(islice(rows, ROWS_AT_ONCE))
    return pl.concat(blocks) if table is None else table, header, tuple(notes)


def _plain(data: bytes, names: Sequence[str], header: bool, separator: str,
           quote: str) -> DataFrame | None:
    """The columns of a file without quotes, at once; ``None`` if it needs a closer look."""
    import polars as pl

    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if (len(names) == 1 or separator not in SEPARATORS or quote.encode() in data
            or data.count(b"\r") != data.count(b"\r\n")
            or data.count(separator.encode()) != lines * (len(names) - 1)):
        return None
    try:  # equally many values on average, and polars refuses lines of more
        return pl.read_csv(data, separator=separator, quote_char=None, has_header=False,
                           skip_rows=int(header), infer_schema=False, new_columns=names)
    except pl.exceptions.PolarsError:
        return None


def _as_utf8(data: bytes, name: str, chosen: str | None) -> bytes:
    """The text in UTF-8, from the encoding that was chosen, or by the mark at the start.

    Raises:
        DataError: an encoding Python does not know, or bytes that are no text in it.
    """
    encoding = chosen or ("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
    try:
        text = data.decode(encoding)
    except LookupError:
        raise DataError(f"{name}: {say_option('encoding', chosen)}: no such encoding; usual are "
                        "utf-8, cp1252, latin-1, utf-16") from None
    except UnicodeDecodeError as error:
        hint = f"; Western European text is read with {say_option('encoding', 'cp1252')}"
        raise DataError(f"{name} is not {encoding.upper()}: byte 0x{data[error.start]:02x} is "
                        f"{error.reason}" + hint * (encoding == "utf-8")) from None
    if "\x00" in text:
        wide = "utf-16-le" if data[1:2] == b"\x00" else "utf-16-be"
        raise DataError(f"{name} holds zero bytes: it is no text, or text in an encoding that must "
                        f"be named, as {say_option('encoding', wide)}")
    return text.removeprefix("\ufeff").encode()


def _reader(lines: Iterable[str], separator: str, quote: str) -> Any:
    if separator == " ":  # any number of blanks and tabs
        lines = (line.replace("\t", " ").strip(" \r\n") + "\n" for line in lines)
    return csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=True,
                      strict=True)


def _rows(lines: Iterable[str], name: str, separator: str, quote: str, skip: int,
          notes: list[str]) -> Iterator[list[str]]:
    """Values of each row; a row of another width than the first is an error with its line."""
    reader = _reader(islice(lines, skip, None), separator, quote)
    width, blank = -1, 0
    try:
        for row in reader:
            if len(row) == width:
                yield row
            elif not row or (width > 0 and len(row) == 1 and not row[0].strip()):
                blank += 1
            elif width < 0:
                width = len(row)
                yield row
            else:
                raise DataError(
                    f"{name}: line {reader.line_num + skip} has {len(row)} values, the first row "
                    f"has {width}; repair or remove the line"
                    + " (or the lines before the names)" * (width == 1)
                    + f", or say {say_option('separator')} if values are not separated by "
                    + repr(separator))
    except csv.Error as error:
        raise DataError(f"{name}: line {reader.line_num + skip}: {error}") from None
    if blank and width == 1:
        notes.append(f"{blank} blank lines skipped")


def _sniff(lines: Sequence[str], name: str, suffix: str, how: HowToRead,
           notes: list[str]) -> tuple[str, str, int]:
    """Separator, quotes and how many lines stand before the first row."""
    separator = NAMED_SEPARATORS.get(how.separator or "", how.separator)
    if separator is not None and len(separator) != 1:
        raise DataError(f"{name}: {say_option('separator', how.separator)}: give one character, or "
                        "tab, comma, semicolon, pipe")
    start = 0
    if lines and re.fullmatch("sep=.[\r\n]*", lines[0], re.IGNORECASE):
        separator, start = separator or lines[0][4], 1
    skip = next((i for i in range(start, len(lines)) if not lines[i].startswith("#")), len(lines))
    body = [line for line in lines[skip:] if line.strip()]
    text = "".join(body[:200])
    single, double = (len(_QUOTED[quote].findall(text)) for quote in "'\"")
    quote = "'" if single > double else '"'
    if separator is None and suffix in (".tsv", ".tab") and "\t" in text:
        separator = "\t"
    separator = separator or _separator(body, quote, notes)
    if body and skip > start:  # a last comment may name the columns: words over numbers
        names, values = ([cell.strip() for cell in line.split(separator)]
                         for line in (lines[skip - 1].lstrip("# "), body[0]))
        if len(names) == len(values) > 1 and any(map(is_number, values)) and not any(
                map(is_number, names)):
            return separator, quote, skip - 1
        notes.append(f"{skip - start} line{'s' * (skip - start > 1)} of comments skipped")
    return separator, quote, skip


def _separator(lines: Sequence[str], quote: str, notes: list[str]) -> str:
    """What gives every row of the sample equally many values: blanks between numbers; of several
    others the one whose values hold the fewest of the rest, then the one of the most columns."""
    aligned = sum(bool(_BLANK_NUMBERS.match(line)) for line in lines) >= max(0.5 * len(lines), 1)
    valid, option = [], say_option("separator")
    for candidate in " " * aligned + SEPARATORS:
        reader, rows = _reader(lines, candidate, quote), list[list[str]]()
        try:
            rows.extend(row for row in reader if len(row) != 1 or row[0].strip())
        except csv.Error:
            if reader.line_num < len(lines):  # else the sample ends between quotes
                continue
        widths = {len(row) for row in rows}
        if len(widths) != 1 or widths == {1}:
            continue
        if candidate == " ":
            notes.append(f"values are taken to be separated by blanks; others with {option}")
            return " "
        foreign = np.mean([any(mark in cell for mark in SEPARATORS)
                           and not _looks_like_a_number(cell) for row in rows for cell in row])
        valid.append((foreign, -len(rows[0]), SEPARATORS.index(candidate)))
    if valid:
        foreign, _, place = min(valid)
        if foreign > 0.3:
            notes.append(f"values are taken to be separated by {SEPARATORS[place]!r}; others with "
                         f"{option}")
        return SEPARATORS[place]
    # words or numbers alone in a line, or rows of different widths
    counts = {c: sum(c in line for line in lines) for c in SEPARATORS}
    likely = max(SEPARATORS, key=counts.__getitem__)
    ragged = counts[likely] > len(lines) / 2 or (counts[likely] and len(lines) < 3)
    return likely if ragged else ","


def is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text))


def _looks_like_a_number(text: str) -> bool:
    return is_number(text) or is_number(re.sub(r"[\s$€£¥%,'\u00a0\u202f]", "", text))


def _has_header(rows: Sequence[list[str]], notes: list[str]) -> bool:
    """Whether the first row names the columns.

    It does not where one of its words stands in its column again, is a gap, or where it holds
    numbers; numbers are names only where they run on by equal steps and lie outside their
    columns' ranges (wavelengths, years).
    """
    columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
    while len(columns) > 1 and not any(columns[-1]):
        columns.pop()  # a separator at the end of every line
    first = [column[0] for column in columns]
    numbers = [i for i, cell in enumerate(first) if _looks_like_a_number(cell)]
    words = [i for i, cell in enumerate(first) if i not in numbers and (cell or i)]
    if len(rows) < 2:
        return bool(rows) and not numbers
    if not any(first) or any(first[i] and first[i].lower() in MISSING for i in words):
        return False
    rest = [[v for v in column[1:] if v.lower() not in MISSING] for column in columns]
    numeric = [bool(values) and all(map(_looks_like_a_number, values)) for values in rest]
    if any(_DATE.match(first[i]) and not numeric[i] for i in words):
        return False
    over_numbers = any(numeric[i] and first[i] for i in words)
    recurs = any(first[i] in rest[i] for i in words if not numeric[i])
    header, sure = over_numbers or not recurs, over_numbers != recurs and not numbers
    if numbers:
        header = (not recurs and len(rows) > 3 and not (over_numbers and len(numbers) > len(words))
                  and all(numeric[i] for i in numbers)
                  and _name_numbers([first[i] for i in numbers], [rest[i] for i in numbers]))
    if header and not sure:
        notes.append(f"the first line ({', '.join(first[:3])}{', …' * (len(first) > 3)}) is taken "
                     f"for names; {say_option('header', 'no')} reads it as a row")
    return header


def _name_numbers(names: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Numbers that run on by equal steps and lie far outside their columns' ranges."""
    if len(names) < 3 or not all(map(is_number, names)):
        return False
    values = np.array(names, float)
    steps = np.diff(values)
    bodies = [[float(v) for v in column if is_number(v)] or [value]
              for value, column in zip(values, columns, strict=True)]
    low, high = np.array([(min(body), max(body)) for body in bodies]).T
    spread = np.maximum(high - low, 1e-12)
    within = (low - spread <= values) & (values <= high + spread)
    return bool(steps[0] != 0 and np.allclose(steps, steps[0]) and not within.any())


def names_of(first: Sequence[str], notes: list[str]) -> list[str]:
    """Names without blanks around them; one that is there already gets a number."""
    names: list[str] = []
    for i, cell in enumerate(first):
        bare = " ".join(cell.split()) or f"{UNNAMED}{i}"
        name, number = bare, 2
        while name in names:
            name, number = f"{bare}_{number}", number + 1
        if name != bare:
            notes.append(f"two columns are called {bare}; the second is read as {name}")
        names.append(name)
    return names
