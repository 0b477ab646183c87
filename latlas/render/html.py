"""One self-contained HTML page: images inline, no script, no network, light and dark."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources


@dataclass(frozen=True)
class Figure:
    """An image with its caption.

    Attributes:
        image: PNG or GIF bytes.
        caption: one sentence; ``title`` stands before it in bold.
        dark: the same image for a dark page; ``image`` serves both if ``None``.
        rows: names of the rows of a grid of images, from the top.
    """

    image: bytes
    title: str = ""
    caption: str = ""
    dark: bytes | None = None
    rows: Sequence[str] = ()

    def html(self) -> str:
        text = escape(f"{self.title} {self.caption}".strip() or "figure", quote=True)
        body = f'<img src="{_uri(self.image)}" alt="{text}">'
        if self.dark is not None:
            dark = f'<source srcset="{_uri(self.dark)}" media="(prefers-color-scheme: dark)">'
            body = f"<picture>{dark}{body}</picture>"
        if self.rows:
            names = "".join(f"<li>{escape(row)}</li>" for row in self.rows)
            body = f'<div class="labelled"><ol>{names}</ol><div>{body}</div></div>'
        caption = f"<b>{escape(self.title)}</b> " if self.title else ""
        caption += escape(self.caption)
        head = f"<figcaption>{caption}</figcaption>" if caption else ""
        return f"<figure>{head}{body}</figure>"


@dataclass(frozen=True)
class Row:
    """Figures beside each other where the page is wide enough, at most ``columns`` of them."""

    figures: Sequence[Figure]
    columns: int = 3

    def html(self) -> str:
        n = len(self.figures)
        across = min(n, 2 if n == 4 else self.columns)
        return f'<div class="row of{across}">{"".join(f.html() for f in self.figures)}</div>'


@dataclass(frozen=True)
class Cell:
    """A table cell with its role (``best``, ``control``, ``flag`` or none), a line below it."""

    text: str
    role: str = ""
    below: str = ""

    def html(self) -> str:
        role = f' class="{self.role}"' if self.role else ""
        below = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f"<td{role}>{escape(self.text)}{below}</td>"


@dataclass(frozen=True)
class Table:
    """A heading row and rows of cells; a row of one cell is a group heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def html(self) -> str:
        head, span = "".join(f"<th>{escape(c)}</th>" for c in self.columns), len(self.columns)
        body = "".join(
            f'<tr class="group"><td colspan="{span}">{escape(row[0].text)}</td></tr>'
            if len(row) == 1 else f"<tr>{''.join(cell.html() for cell in row)}</tr>"
            for row in self.rows)
        return (f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
                f"<tbody>{body}</tbody></table></div>")


@dataclass(frozen=True)
class Notes:
    """Short sentences as a list."""

    lines: Sequence[str]

    def html(self) -> str:
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        return f'<ul class="notes">{lines}</ul>' if lines else ""


@dataclass(frozen=True)
class Facts:
    """Names and values; those whose names are in ``code`` are set as code."""

    values: Mapping[str, str]
    code: frozenset[str] = frozenset()

    def html(self) -> str:
        lines = ""
        for name, value in self.values.items():
            text = f"<code>{escape(value)}</code>" if name in self.code else escape(value)
            lines += f"<dt>{escape(name)}</dt><dd>{text}</dd>"
        return f"<dl>{lines}</dl>"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read it, and its parts. ``anchor`` is its address in
    the page."""

    title: str
    text: str = ""
    parts: Sequence[Row | Table | Notes | Facts] = ()

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def html(self) -> str:
        text = f"<p>{escape(self.text)}</p>" if self.text else ""
        parts = "".join(part.html() for part in self.parts)
        return f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>{text}{parts}</section>'


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str = "") -> str:
    """The whole document. Nothing in it points outside the file."""
    css = resources.files("latlas.render").joinpath("style.css").read_text("utf-8")
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    body = "".join(section.html() for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{css}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav>{links}</nav></header>"
        f"{body}<footer>{escape(footer)}</footer></main></body></html>\n")


def _uri(data: bytes) -> str:
    kind = "gif" if data[:3] == b"GIF" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
