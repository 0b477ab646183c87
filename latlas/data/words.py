"""Words of a table as numbers and dates."""

import polars as pl

from latlas.data.text import NUMBER

SYMBOLS = r"[$€£¥₹%\s\u00a0\u202f'’]"
BLANKS = r"[\s\u00a0\u202f'’]"
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y",
                "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y",
                "%b %d %Y", "%B %d %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%y", "%d %b %y")
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
#: by which number of 3/4/2020 is the day
ORDERS = {"dmy": ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y"),
          "mdy": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y")}
ZONE = r"(\d\d) ?(Z|UTC|GMT|[+-]\d\d:?\d\d)$"


def date_formats(present: pl.Series) -> list[str]:
    """Every way to write dates (strftime) that all these words follow."""
    sample = present[:1000]
    if not sample.str.contains(r"\d.*[-/. ]|[-/. ].*\d").all():
        return []
    fit = []
    for date in DATE_FORMATS:
        for time in TIME_FORMATS:
            if not to_dates(sample, date + time).null_count():
                fit.append(date + time)
    return [f for f in fit if not to_dates(present, f).null_count()]


def to_numbers(words: pl.Series, form: str) -> pl.Series:
    """Text as Float64, null where it is no number.

    ``form`` is the mark before decimals of a column that has thousands, currencies or percent
    signs too; ``""`` of one whose numbers are plain.
    """
    plain = words.str.contains(f"^({NUMBER}|[+-]?(?i:inf|infinity))$")
    if form == ",":
        plain = plain & ~words.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+$")
    if plain.fill_null(True).all():
        return words.cast(pl.Float64, strict=False)
    blanks = words.str.contains(rf"\d{BLANKS}+\d")  # in thousands, else it is no one number
    thousand = ~blanks | words.str.contains(
        rf"^\D*\d{{1,3}}({BLANKS}\d{{3}})+([.,]\d*)?(\D*|[eE][+-]?\d+)$")
    bare = words.str.replace("−", "-").str.replace_all(SYMBOLS, "").str.replace(
        r"^\((.*)\)$", "-$1")
    thousands, decimal = (".", ",") if form == "," else (",", ".")
    grouped = bare.str.contains(
        rf"^[+-]?(\d{{1,3}}(\{thousands}\d{{3}})+|\d{{1,2}}(\{thousands}\d\d)+\{thousands}"
        rf"\d{{3}}|\d+)?(\{decimal}\d*)?([eE][+-]?\d+)?$")
    if form == "":  # a fraction written with a comma in a file of its own
        grouped = bare.str.contains(r"^[+-]?\d+,(\d{1,2}|\d{4,})$|^[+-]?0,\d+$")
        thousands, decimal = ".", ","
    cleaned = bare.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".",
                                                                            literal=True)
    numbers = cleaned.cast(pl.Float64, strict=False)
    return pl.select(pl.when(plain).then(words.cast(pl.Float64, strict=False)).when(
        grouped & thousand).then(
        numbers).otherwise(None).alias(words.name)).to_series()


def to_dates(words: pl.Series, form: str) -> pl.Series:
    """Datetimes, those with a zone in UTC; null where a word is not of this form."""
    bare = words.str.replace(r"T(\d)", " $1")
    zone = None
    if bare[:1000].str.contains(r":\d\d(\.\d+)? ?[A-Z+-]").any():
        zone = bare.str.extract(ZONE, 2)
        bare = bare.str.replace(ZONE, "$1")
    dates = bare.str.to_datetime(form, strict=False, time_unit="us")
    if "%Y" in form:  # strptime takes 19 for the year 19
        dates = dates.set(~bare.str.contains(r"(^|\D)\d{4}(\D|$)").fill_null(True), None)
    if zone is None:
        return dates
    minutes = (zone.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
               + zone.str.slice(-2).cast(pl.Int64, strict=False))
    minutes = pl.select(pl.when(zone.str.starts_with("-")).then(-minutes).otherwise(
        minutes)).to_series().fill_null(0)
    return pl.select(dates - pl.duration(minutes=pl.lit(minutes))).to_series().alias(words.name)
