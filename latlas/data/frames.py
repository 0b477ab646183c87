"""Files, data frames and arrays of rows as one polars DataFrame, exactly as they say it.

Text files (CSV and its relatives) keep every value as text: what a column means is decided in
:mod:`latlas.data.tables`, once, at training. How a text file is written (separator, quotes, header,
encoding) is about the file alone and is found out for each file; what cannot be told apart is
refused with the option that decides it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import DataError, say_option, unknown

if TYPE_CHECKING:
    from polars import DataFrame

SEPARATORS = ",;\t|"
NAMED_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|",
                    "space": " "}
#: what stands for a gap, in small letters
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-", "--", "#null!", "nil",
           "-nan", "nat", "<null>", "#n/a n/a", "#value!", "#div/0!")
#: characters and lines that the separator and the header are told by
SAMPLE, SAMPLE_LINES = 1 << 20, 1000
ROWS_AT_ONCE = 20_000
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (OSError, EOFError, lzma.LZMAError, ValueError)
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NUMBER = re.compile(NUMBER)


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


@dataclass(frozen=True)
class Frame:
    """Rows as they stand in a file or in memory.

    Attributes:
        data: columns by name; text has no blanks around it, and every gap is null.
        text: values are text of which nothing is known yet.
        named: the columns have names of their own; otherwise they are x0, x1, ….
        notes: what was taken for what, for people to read.
        decimal: the mark before decimals, where it was said.
    """

    data: DataFrame
    text: bool = False
    named: bool = True
    notes: tuple[str, ...] = ()
    decimal: str | None = None


def read_frame(source: Any, name: str, how: HowToRead | None = None) -> Frame:
    """The rows of a path, a binary stream, a frame of any library, or an array (n, d).

    Raises:
        DataError: one line with the name, and the line of the file or the option to use.
    """
    import polars as pl

    how = how or HowToRead()
    if isinstance(source, Path) or hasattr(source, "read"):
        suffix = _suffix(name)
        try:
            folder = isinstance(source, Path) and source.is_dir()
            if suffix in (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", "") and not folder:
                frame = _read_text(source, name, suffix, how)
            else:
                frame = Frame(_read_typed(source, name, suffix, how))
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
        except (*BROKEN, sqlite3.Error, csv.Error) as error:
            raise DataError(f"{name} cannot be read: {error}") from None
    else:
        frame = _in_memory(source, name)
    if not len(frame.data) or not frame.data.width:
        raise DataError(f"{name} has no rows")
    data = _with_gaps(frame.data, how.missing)
    return Frame(data, frame.text, frame.named, frame.notes, how.decimal)


def _with_gaps(data: DataFrame, more: str | None) -> DataFrame:
    """NaN, and the words that stand for a gap in any letter case, as null."""
    import polars as pl

    words = {w.strip().lower() for w in (more or "").split(",")} | set(MISSING)
    variants = pl.Series(sorted({form(w) for w in words for form in (
        str, str.upper, str.title, str.capitalize, lambda w: w.replace("nan", "NaN"))}))
    text, real = pl.col(pl.String), pl.selectors.float()
    return data.with_columns(text.str.strip_chars()).with_columns(
        pl.when(text.is_in(variants.implode())).then(None).otherwise(text).name.keep(),
        real.fill_nan(None))


def is_frame(source: Any) -> bool:
    """A data frame of any library: polars, pandas, pyarrow, …"""
    import narwhals as nw

    if isinstance(source, nw.DataFrame | nw.LazyFrame) or nw.dependencies.is_into_dataframe(source):
        return True
    return hasattr(source, "__arrow_c_stream__") or type(source).__name__ == "LazyFrame"


def _suffix(name: str) -> str:
    """The ending that says what a file is, less the one that says how it is compressed."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


# ------------------------------------------------------------------ typed files and frames

def _read_typed(source: Any, name: str, suffix: str, how: HowToRead) -> DataFrame:
    import polars as pl

    if isinstance(source, Path) and source.is_dir():
        parts = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".parquet", ".pq")
                       and not p.name.startswith((".", "_")))
        frames = [pl.read_parquet(part, use_pyarrow=False) for part in parts]
        for part, frame in zip(parts, frames, strict=True):
            if frame.schema != frames[0].schema:
                raise DataError(f"{part} has other columns or types than {parts[0].name}")
        return pl.concat(frames)
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return _read_sqlite(source, name, how)
    with _bytes_of(source, name) as stream:
        data = stream.read()
    if suffix in (".parquet", ".pq"):
        return pl.read_parquet(io.BytesIO(data))
    if suffix in (".arrow", ".feather", ".ipc"):
        return pl.read_ipc(io.BytesIO(data)) if data[:6] == b"ARROW1" else pl.read_ipc_stream(
            io.BytesIO(data))
    if suffix in (".jsonl", ".ndjson"):
        return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    raise DataError(f"{name} is not a kind of table latlas reads")


def _bytes_of(source: Any, name: str) -> Any:
    opener = COMPRESSED.get(Path(name.lower()).suffix)
    if opener:
        return opener(source, "rb")
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read())


def _read_sqlite(source: Any, name: str, how: HowToRead) -> DataFrame:
    """One table or query of an SQLite file, which is opened read-only."""
    import polars as pl

    if not isinstance(source, Path):
        raise DataError(f"{name}: an SQLite file is read from a path, not from a stream")
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as base:
        query = how.query
        if query is None:
            tables = [row[0] for row in base.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
                "AND name NOT LIKE 'sqlite_%' ORDER BY name")]
            table = how.table or (tables[0] if len(tables) == 1 else None)
            if table not in tables:
                raise DataError(f"{name}: " + (unknown("table", how.table, tables) if how.table
                                               else f"holds {len(tables)} tables "
                                               f"({', '.join(tables)}); choose one with "
                                               f"{say_option('table', 'NAME')}"))
            query = 'SELECT * FROM "{}"'.format(str(table).replace('"', '""'))
        cursor = base.execute(query)
        columns = [d[0] for d in cursor.description or ()]
        rows = cursor.fetchall()
    return pl.DataFrame({c: _series(c, [row[i] for row in rows]) for i, c in enumerate(columns)})


def _series(name: str, values: list[Any]) -> Any:
    """Values of one type as they are; words and numbers mixed become words."""
    import polars as pl

    present = {type(v) for v in values if v is not None and v == v}
    if bytes in present:
        raise DataError(f"column {name} holds binary values; leave it out with "
                        f"{say_option('drop', name)}")
    if str in present and len(present) > 1:
        values = [None if v is None or v != v else str(v) for v in values]
    return pl.Series(name, [None if v is None or v != v else v for v in values], strict=False)


def _in_memory(source: Any, name: str) -> Frame:
    import narwhals as nw
    import polars as pl

    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return Frame(source)
    frame: Any = nw.from_native(source, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        native = getattr(frame.to_native(), "columns", None)
        if native is not None and list(native) == list(range(len(native))):  # pandas, unnamed
            frame = frame.rename({c: f"x{i}" for i, c in enumerate(frame.columns)})
        named = native is None or list(native) != list(range(len(native)))
        columns = {}
        for column in frame.iter_columns():
            if column.dtype.is_numeric() and not column.null_count():
                columns[column.name] = pl.Series(column.name, column.to_numpy())
            else:
                columns[column.name] = _series(column.name, column.to_list())
        return Frame(pl.DataFrame(columns), named=named)
    if hasattr(source, "__arrow_c_stream__"):
        return Frame(pl.DataFrame(source))
    if isinstance(source, dict):
        return Frame(pl.DataFrame({str(k): _series(str(k), np.asarray(v).tolist())
                                   for k, v in source.items()}))
    array = np.asarray(source)
    if array.dtype.names:
        return Frame(pl.DataFrame({n: _series(n, array[n].tolist()) for n in array.dtype.names}))
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise DataError(f"{name}: rows must be numbers of shape (n, d), not {array.dtype} of "
                        f"shape {array.shape}")
    return Frame(pl.DataFrame({f"x{i}": array[:, i] for i in range(array.shape[1])}), named=False)


# ------------------------------------------------------------------ text

@dataclass(frozen=True)
class _Dialect:
    separator: str
    quote: str
    skip: int = 0  # lines before the first row


def _read_text(source: Any, name: str, suffix: str, how: HowToRead) -> Frame:
    import polars as pl

    with _bytes_of(source, name) as stream:
        head = stream.read(SAMPLE)
    if not isinstance(source, Path):
        source.seek(0)
    encoding = _encoding(head, name, how.encoding)
    notes: list[str] = []
    with _bytes_of(source, name) as stream:
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
            names = _names(first.pop(0), notes) if header else [f"x{i}" for i in range(width)]
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
    return Frame(table, True, header, tuple(notes))


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
    lines = islice(_lines(text, name), dialect.skip, None)
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
                    f"row has {width}; repair the line, or say {say_option('separator')} if "
                    "values are not separated by "
                    + repr(dialect.separator))
            yield row
        if blank and width == 1:
            notes.append(f"{blank} blank lines skipped")
    except csv.Error as error:
        raise DataError(f"{name}: line {reader.line_num + where}: {error}") from None


def _sniff(lines: Sequence[str], name: str, suffix: str, how: HowToRead,
           notes: list[str]) -> _Dialect:
    """Separator, quotes and lines to skip, by what gives rows of one width.

    A separator is taken if every row of the sample has equally many values. Of several the one
    whose values hold the fewest other separators is taken, then the one that gives more columns.
    """
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
    if separator is not None:
        return _Dialect(separator, quote, skip)
    if suffix in (".tsv", ".tab"):
        return _Dialect("\t", quote, skip)
    valid = []
    for candidate in SEPARATORS:
        rows = _try(lines[skip:], candidate, quote)
        if rows is None or len(rows[0]) < 2:
            continue
        cells = [cell for row in rows for cell in row]
        foreign = sum(any(s in cell for s in SEPARATORS) and not _looks_like_a_number(cell)
                      for cell in cells) / len(cells)
        valid.append((foreign, -len(rows[0]), SEPARATORS.index(candidate), candidate))
    if valid:
        return _Dialect(min(valid)[-1], quote, skip)
    # no separator gives rows of one width: words or numbers alone in a line, or a ragged file
    counts = {c: sum(c in line for line in body) for c in SEPARATORS}
    likely = max(counts, key=lambda c: counts[c])
    ragged = counts[likely] > len(body) / 2 or (counts[likely] and len(body) < 3)
    return _Dialect(likely if ragged else ",", quote, skip)


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
    if not rest:
        return not any(_looks_like_a_number(cell) for cell in first)
    while len(first) > 1 and first[-1] == "" and not any(
            row[len(first) - 1].strip() for row in rest):
        first.pop()  # a separator at the end of every line
    first_is_index = first[0] == ""
    numbers = [i for i, cell in enumerate(first) if _looks_like_a_number(cell)]
    words = [i for i in range(len(first)) if i not in numbers and not (i == 0 and first_is_index)]
    if any(first[i].lower() in MISSING and first[i] != "" for i in words) or not any(
            first[i] for i in (*words, *numbers)):
        return False
    columns = {i: [row[i].strip() for row in rest] for i in range(len(first))}

    def numeric(i: int) -> bool:
        present = [v for v in columns[i] if v.lower() not in MISSING]
        return bool(present) and all(_looks_like_a_number(v) for v in present)

    over_numbers = any(numeric(i) for i in words)
    recurs = any(first[i] in columns[i] for i in words if first[i] and not numeric(i))
    if not numbers:
        if not over_numbers and not recurs:
            notes.append(f"the first line ({', '.join(first[:3])}{', …' * (len(first) > 3)}) is "
                         f"taken for names; {say_option('header', 'no')} reads it as a row")
        return over_numbers or not recurs
    if recurs or (words and over_numbers and len(numbers) > len(words)):
        return False
    if not all(is_number(first[i]) for i in numbers):
        return False
    values = np.array([float(first[i]) for i in numbers])
    steps = np.diff(values)
    runs_on = len(values) >= 3 and np.allclose(steps, steps[0]) and steps[0] != 0
    if not runs_on or len(rest) < 3:
        return False
    outside = 0
    for i, value in zip(numbers, values, strict=True):
        if not numeric(i):
            return False
        body = np.array([float(v) for v in columns[i] if is_number(v)])
        if not len(body):
            return False
        spread = max(np.ptp(body), 1e-12)
        outside += bool(value > body.max() + spread or value < body.min() - spread)
    if outside == len(numbers):
        notes.append(f"the first line ({', '.join(first[:3])}, …) is taken for names; "
                     f"{say_option('header', 'no')} reads it as a row")
        return True
    return False


def _looks_like_a_number(text: str) -> bool:
    return is_number(text) or is_number(re.sub(r"[\s$€£¥%,'\u00a0\u202f]", "", text))


def _names(first: Sequence[str], notes: list[str]) -> list[str]:
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
