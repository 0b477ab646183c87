"""Words of a table as numbers and dates."""

import re

import polars as pl

from latlas.data.text import NUMBER

SYMBOLS = r"[$€£¥₹%\s\u00a0\u202f'’]"
BLANKS = r"[\s\u00a0\u202f'’]"
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y",
                "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y",
                "%b %d %Y", "%B %d %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%y", "%d %b %y")
MONTH_FORMATS = ("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y")
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (*(date + time for date in DATE_FORMATS for time in TIME_FORMATS), *MONTH_FORMATS,
           *(time.strip() for time in TIME_FORMATS[1:]))
#: by which number of 3/4/2020 is the day
ORDERS = {"dmy": ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y"),
          "mdy": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y")}
ZONE = r"(\d\d) ?(Z|UTC|GMT|[+-]\d\d:?\d\d)$"


def date_formats(present: pl.Series) -> list[str]:
    """Every way to write dates or times of day (strftime) that all these words follow."""
    sample = present[:1000]
    if not sample.str.contains(r"\d.*[-/. :]|[-/. ].*\d").all():
        return []
    fit = [form for form in FORMATS if not to_dates(sample, form).null_count()]
    return [form for form in fit if not to_dates(present, form).null_count()]


def to_numbers(words: pl.Series, form: str) -> pl.Series:
    """Text as Float64, null where it is no number.

    ``form`` is the mark before decimals of a column that has thousands, currencies or percent
    signs too, a blank or nothing of one whose numbers are plain, and then the unit behind them.
    """
    mark, unit = form[:1].strip(), form[1:]
    if unit:
        words = words.str.replace(rf"\s*{re.escape(unit)}$", "")
    numbers = words.cast(pl.Float64, strict=False)
    if mark != "," and numbers.null_count() == words.null_count():
        return numbers
    plain = words.str.contains(f"^({NUMBER}|[+-]?(?i:inf|infinity))$")
    if mark == ",":
        plain = plain & ~words.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+$")
    blanks = words.str.contains(rf"\d{BLANKS}+\d")  # in thousands, else it is no one number
    thousand = ~blanks | words.str.contains(
        rf"^\D*\d{{1,3}}({BLANKS}\d{{3}})+([.,]\d*)?(\D*|[eE][+-]?\d+)$")
    bare = words.str.replace("−", "-").str.replace_all(SYMBOLS, "").str.replace(
        r"^\((.*)\)$", "-$1")
    thousands, decimal = (",", ".") if mark == "." else (".", ",")
    grouped = bare.str.contains(
        rf"^[+-]?(\d{{1,3}}(\{thousands}\d{{3}})+|\d{{1,2}}(\{thousands}\d\d)+\{thousands}"
        rf"\d{{3}}|\d+)?(\{decimal}\d*)?([eE][+-]?\d+)?$" if mark else
        r"^[+-]?\d+,(\d{1,2}|\d{4,})$|^[+-]?0,\d+$")  # a fraction with a comma, without thousands
    cleaned = bare.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".",
                                                                            literal=True)
    return pl.select(pl.when(plain).then(numbers).when(grouped & thousand).then(
        cleaned.cast(pl.Float64, strict=False)).alias(words.name)).to_series()


def to_dates(words: pl.Series, form: str) -> pl.Series:
    """Datetimes, those with a zone in UTC, months as their first day, times of day on the first of
    January 1970; null where a word is not of this form."""
    bare = words.str.replace(r"T(\d)", " $1")
    zone = None
    if bare[:1000].str.contains(r":\d\d(\.\d+)? ?[A-Z+-]").any():
        zone = bare.str.extract(ZONE, 2)
        bare = bare.str.replace(ZONE, "$1")
    day, written = ("%d ", "01 ") if form in MONTH_FORMATS else (
        ("%Y-%m-%d ", "1970-01-01 ") if form.startswith(("%H", "%I")) else ("", ""))
    dates = (written + bare).str.to_datetime(day + form, strict=False, time_unit="us")
    if "%Y" in form:  # strptime takes 19 for the year 19
        year = "(19|20)\\d\\d" if form in MONTH_FORMATS else "\\d{4}"
        dates = dates.set(~bare.str.contains(rf"(^|\D){year}(\D|$)").fill_null(True), None)
    if zone is None:
        return dates
    minutes = (zone.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
               + zone.str.slice(-2).cast(pl.Int64, strict=False))
    minutes = pl.select(pl.when(zone.str.starts_with("-")).then(-minutes).otherwise(
        minutes)).to_series().fill_null(0)
    return pl.select(dates - pl.duration(minutes=pl.lit(minutes))).to_series().alias(words.name)
