"""Text files of rows (CSV and its relatives) in any dialect, exactly as they say it.

How a file is written (separator, quotes, header, encoding) is about that file alone, and told from
a sample of it; what cannot be told is refused with the option that decides it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
#: characters and lines that the separator and the header are told by
SAMPLE, SAMPLE_LINES = 1 << 20, 1000
ROWS_AT_ONCE = 20_000
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (OSError, EOFError, lzma.LZMAError, ValueError)
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NUMBER = re.compile(NUMBER)
#: a line of two values and more, the first a number, between blanks; no thousands, no other mark
_BLANK_NUMBERS = re.compile(rf"\s*{NUMBER}[ \t]+(?![^,;|]*[,;|])(?!\d{{3}}\s*$)\S")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
@dataclass(frozen=True)
class HowToRead:
    """How a file of rows is written; what is ``None`` is told from the file.

    Attributes:
        separator: between values: one character, or ``tab``, ``semicolon``, ``comma``, ``pipe``.
        header: whether the first line names the columns.
        decimal: ``,`` or ``.``, the mark before the decimals of a text file's numbers.
        encoding: of a text file (``utf-8``, ``cp1252``, ``utf-16``, …).
        missing: more words that stand for a gap, separated by commas.
        table: of an SQLite file, the table to read; ``query``: the SELECT to read instead.
    """

    separator: str | None = None
    header: bool | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: str | None = None
    table: str | None = None
    query: str | None = None


def opened(source: Any, name: str) -> Any:
    opener = COMPRESSED.get(Path(name.lower()).suffix)
    if opener:
        return opener(source, "rb")
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read())


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quote: str
    skip: int = 0  # lines before the first row


def read_text(source: Any, name: str, suffix: str, how: HowToRead) -> tuple[
        DataFrame, bool, tuple[str, ...]]:
    """Every value as text, whether the first line names the columns, and notes."""
    import polars as pl

    with opened(source, name) as stream:
        head = stream.read(SAMPLE)
    if not isinstance(source, Path):
        source.seek(0)
    encoding = _encoding(head, name, how.encoding)
    notes: list[str] = []
    with opened(source, name) as stream:
        text = io.TextIOWrapper(stream, encoding, newline="")
        try:
            lines = list(islice(_lines(text, name), SAMPLE_LINES))
            dialect = _sniff(lines, name, suffix, how, notes)
            text.seek(0)
            rows = _rows(text, name, dialect, notes)
            first = list(islice(rows, SAMPLE_LINES))
            if not first:
                raise DataError(f"{name} has no rows")
            header = _has_header(first, notes) if how.header is None else how.header
            width = len(first[0])
            names = names_of(first.pop(0), notes) if header else [f"x{i}" for i in range(width)]
            names[0] = names[0].lstrip("# ") or names[0]  # of a last comment that names columns
            blocks, block = [], first
            while block:
                blocks.append(_block(block, names, name))
                block = list(islice(rows, ROWS_AT_ONCE))
        except UnicodeDecodeError as error:
            raise _not_text(name, encoding, error) from None
    if not blocks:
        raise DataError(f"{name} has no rows")
    table = pl.concat(blocks)
    empty = [n for n in names if n.startswith(UNNAMED) and not (
        table[n].str.strip_chars().fill_null("") != "").any()]
    if empty:
        notes.append(f"{len(empty)} empty column{'s' * (len(empty) > 1)} without a name left out")
        table = table.drop(empty)
    return table, header, tuple(notes)


def _block(rows: Sequence[Sequence[str]], names: Sequence[str], name: str) -> DataFrame:
    """Rows of text as columns, by way of text that needs no quotes: quicker than from lists."""
    import polars as pl

    text = "".join(["\x1f" + "\x1f".join(row) + "\x1e" for row in rows])
    if text.count("\x1e") != len(rows) or text.count("\x1f") != len(rows) * len(names):
        raise DataError(f"{name} holds control characters (0x1e or 0x1f): it is no text")
    return pl.read_csv(text.encode(), separator="\x1f", eol_char="\x1e", quote_char=None,
                       has_header=False, infer_schema=False, new_columns=["", *names]).drop("")


UNNAMED = "unnamed "


def _encoding(head: bytes, name: str, chosen: str | None) -> str:
    """The encoding by the mark at the start, else UTF-8.

    Raises:
        DataError: an encoding Python does not know, or zero bytes, which no text holds.
    """
    if chosen is not None:
        try:
            "".encode(chosen)
        except LookupError:
            raise DataError(f"{name}: {say_option('encoding', chosen)}: no such encoding; "
                            "usual are utf-8, cp1252, latin-1, utf-16") from None
        return "utf-8-sig" if chosen.lower().replace("_", "-") in ("utf-8", "utf8") else chosen
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\x00" in head:
        wide = "utf-16-le" if head[1:2] == b"\x00" else "utf-16-be"
        raise DataError(f"{name} holds zero bytes: it is no text, or text in an encoding that must "
                        f"be named, as {say_option('encoding', wide)}")
    return "utf-8-sig"


def _not_text(name: str, encoding: str, error: UnicodeDecodeError) -> DataError:
    hint = (f"; Western European text is read with {say_option('encoding', 'cp1252')}"
            if encoding.startswith("utf-8") else "")
    return DataError(f"{name} is not {encoding.removesuffix('-sig').upper()}: byte "
                     f"0x{error.object[error.start]:02x} is {error.reason}{hint}")


def _lines(text: Any, name: str) -> Iterator[str]:
    for line in text:
        if "\x00" in line:
            raise DataError(f"{name} holds zero bytes: it is no text")
        yield line


def _rows(text: Any, name: str, dialect: _Dialect, notes: list[str]) -> Iterator[list[str]]:
    """Values of each row; a row of another width than the first is an error with its line."""
    lines: Iterator[str] = islice(_lines(text, name), dialect.skip, None)
    if dialect.separator == " ":
        lines = map(_single_blanks, lines)
    reader = csv.reader(lines, delimiter=dialect.separator, quotechar=dialect.quote,
                        skipinitialspace=True, strict=True)
    width, where, blank = 0, dialect.skip, 0
    try:
        for row in reader:
            if row == [] or (width > 1 and len(row) == 1 and not row[0].strip()):
                blank += 1
                continue
            width = width or len(row)
            if len(row) != width:
                raise DataError(
                    f"{name}: line {reader.line_num + where} has {len(row)} values, the first "
                    f"row has {width}; repair or remove the line"
                    + " (or the lines before the names)" * (width == 1)
                    + f", or say {say_option('separator')} if values are not separated by "
                    + repr(dialect.separator))
            yield row
        if blank and width == 1:
            notes.append(f"{blank} blank lines skipped")
    except csv.Error as error:
        raise DataError(f"{name}: line {reader.line_num + where}: {error}") from None


def _sniff(lines: Sequence[str], name: str, suffix: str, how: HowToRead,
           notes: list[str]) -> _Dialect:
    """Separator, quotes and lines to skip."""
    skip = 0
    separator = None if how.separator is None else NAMED_SEPARATORS.get(how.separator,
                                                                        how.separator)
    if separator is not None and len(separator) != 1:
        raise DataError(f"{name}: {say_option('separator', how.separator)}: give one character, or "
                        "tab, comma, semicolon, pipe")
    first = lines[0].rstrip("\r\n") if lines else ""
    if first.lower().startswith("sep=") and len(first) == 5:
        separator, skip = separator or first[4], 1
    while skip < len(lines) and lines[skip].startswith("#"):
        skip += 1
    if skip and lines[skip - 1].startswith("#") and _is_header_comment(lines, skip):
        skip -= 1
    else:
        comments = sum(line.startswith("#") for line in lines[:skip])
        if comments:
            notes.append(f"{comments} line{'s' * (comments > 1)} of comments skipped")
    body = [line for line in lines[skip:] if line.strip()]
    joined = "".join(body[:200])
    quote = "'" if joined.count("'") > 2 * joined.count('"') and re.search(
        r"(^|[,;\t|\r\n])\s*'(?:[^']|'')*'\s*([,;\t|\r\n]|$)", joined) else '"'
    if separator is None and suffix in (".tsv", ".tab") and "\t" in joined:
        separator = "\t"
    return _Dialect(separator or _separator(lines[skip:], body, quote, notes), quote, skip)


def _separator(lines: Sequence[str], body: Sequence[str], quote: str, notes: list[str]) -> str:
    """What gives every row of the sample equally many values. Of several the one whose values hold
    the fewest other separators, then the one that gives more columns."""
    valid = []
    if _aligned(lines, body, quote):
        notes.append("values are taken to be separated by blanks; others with "
                     + say_option("separator"))
        return " "
    for candidate in SEPARATORS:
        rows = _try(lines, candidate, quote)
        if rows is not None and len(rows[0]) >= 2:
            cells = [cell for row in rows for cell in row]
            foreign = sum(any(s in cell for s in SEPARATORS) and not _looks_like_a_number(cell)
                          for cell in cells) / len(cells)
            valid.append((foreign, -len(rows[0]), SEPARATORS.index(candidate), candidate))
    if valid:
        foreign, *_, separator = min(valid)
        if foreign > 0.3:
            notes.append(f"values are taken to be separated by {separator!r}; others with "
                         f"{say_option('separator')}")
        return separator
    # words or numbers alone in a line, or a ragged file
    counts = {c: sum(c in line for line in body) for c in SEPARATORS}
    likely = max(counts, key=lambda c: counts[c])
    ragged = counts[likely] > len(body) / 2 or (counts[likely] and len(body) < 3)
    return likely if ragged else ","


def _aligned(lines: Sequence[str], body: Sequence[str], quote: str) -> bool:
    """Whether blanks stand between values: most lines begin with numbers that only they part, and
    every line has as many values."""
    numbers = sum(bool(_BLANK_NUMBERS.match(line)) for line in body)
    rows = _try(lines, " ", quote) if numbers >= max(0.5 * len(body), 1) else None
    return rows is not None and len(rows[0]) >= 2


def _single_blanks(line: str) -> str:
    """A line whose values stand between blanks, any number of them, and tabs."""
    return line.replace("\t", " ").strip(" \r\n") + "\n"


def _is_header_comment(lines: Sequence[str], skip: int) -> bool:
    """A last ``#`` line that names the columns: as many names as values, over numbers."""
    if skip >= len(lines):
        return False
    for separator in SEPARATORS:
        names = lines[skip - 1].lstrip("# ").split(separator)
        values = lines[skip].split(separator)
        if len(names) == len(values) > 1 and not any(is_number(n.strip()) for n in names):
            return any(is_number(v.strip()) for v in values)
    return False


def _try(lines: Sequence[str], separator: str, quote: str) -> list[list[str]] | None:
    """The rows of the sample if they have one width."""
    if separator == " ":
        lines = list(map(_single_blanks, lines))
    try:
        rows = list(csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=True,
                               strict=True))
    except csv.Error:
        return None
    rows = [row for row in rows if row and not (len(row) == 1 and not row[0].strip())]
    if len(lines) >= SAMPLE_LINES and len(rows) > 1:
        rows.pop()  # may be cut
    return rows if rows and len({len(row) for row in rows}) == 1 else None


def is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text))


def _has_header(rows: Sequence[list[str]], notes: list[str]) -> bool:
    """Whether the first row names the columns.

    It does not where one of its words stands in its column again, is a gap, or where it holds
    numbers; numbers are names only where they run on by equal steps and lie outside their
    columns' ranges (wavelengths, years).
    """
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    while len(first) > 1 and first[-1] == "" and not any(
            row[len(first) - 1].strip() for row in rest):
        first.pop()  # a separator at the end of every line
    numbers = [i for i, cell in enumerate(first) if _looks_like_a_number(cell)]
    words = [i for i in range(bool(first[0] == ""), len(first)) if i not in numbers]
    if not rest:
        return not numbers
    if not any(first) or any(first[i] and first[i].lower() in MISSING for i in words):
        return False
    columns = [[v for v in (row[i].strip() for row in rest) if v.lower() not in MISSING]
               for i in range(len(first))]
    numeric = [bool(c) and all(map(_looks_like_a_number, c)) for c in columns]
    over_numbers = any(numeric[i] and first[i] for i in words)
    if any(_DATE.match(first[i]) and not numeric[i] for i in words):
        return False
    recurs = any(first[i] in columns[i] for i in words if not numeric[i])
    told = over_numbers != recurs  # by the file itself
    header = not recurs or over_numbers
    if numbers:
        told = False
        header = (not recurs and len(rest) >= 3 and not (over_numbers and len(numbers) > len(words))
                  and all(numeric[i] for i in numbers)
                  and _name_numbers([first[i] for i in numbers], [columns[i] for i in numbers]))
    if header and not told:
        notes.append(f"the first line ({', '.join(first[:3])}{', …' * (len(first) > 3)}) is taken "
                     f"for names; {say_option('header', 'no')} reads it as a row")
    return header


def _name_numbers(names: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Numbers that run on by equal steps and lie far outside their columns' ranges."""
    if len(names) < 3 or not all(map(is_number, names)):
        return False
    values = np.array(names, float)
    steps = np.diff(values)
    if steps[0] == 0 or not np.allclose(steps, steps[0]):
        return False
    for value, column in zip(values, columns, strict=True):
        body = np.array([float(v) for v in column if is_number(v)] or [value])
        spread = max(np.ptp(body), 1e-12)
        if body.min() - spread <= value <= body.max() + spread:
            return False
    return True


def _looks_like_a_number(text: str) -> bool:
    return is_number(text) or is_number(re.sub(r"[\s$€£¥%,'\u00a0\u202f]", "", text))


def names_of(first: Sequence[str], notes: list[str]) -> list[str]:
    """Names without blanks around them; one that is there already gets a number."""
    names: list[str] = []
    for i, cell in enumerate(first):
        name = wanted = " ".join(cell.split()) or f"{UNNAMED}{i}"
        number = 2
        while name in names:
            name, number = f"{wanted}_{number}", number + 1
        if name != wanted:
            notes.append(f"two columns are called {wanted}; the second is read as {name}")
        names.append(name)
    return names
