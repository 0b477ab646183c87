"""One self-contained HTML page: images inline, no script, no network, light and dark."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        width: CSS pixels at which it is shown at most; its own size if ``None``.
    """

    image: bytes
    title: str = ""
    caption: str = ""
    dark: bytes | None = None
    rows: Sequence[str] = ()
    width: int | None = None

    def html(self) -> str:
        caption = f"<b>{escape(self.title)}</b> " if self.title else ""
        caption += escape(self.caption)
        head = f"<figcaption>{caption}</figcaption>" if caption else ""
        return f"<figure>{head}{self._labelled()}</figure>"

    def _labelled(self) -> str:
        if not self.rows:
            return self._picture()
        names = "".join(f"<li>{escape(row)}</li>" for row in self.rows)
        return f'<div class="labelled"><ol>{names}</ol><div>{self._picture()}</div></div>'

    def _picture(self) -> str:
        width = f' style="width:{self.width}px"' if self.width else ""
        text = escape(f"{self.title} {self.caption}".strip() or "figure", quote=True)
        img = f'<img src="{_uri(self.image)}" alt="{text}"{width}>'
        if self.dark is None:
            return img
        source = f'<source srcset="{_uri(self.dark)}" media="(prefers-color-scheme: dark)">'
        return f"<picture>{source}{img}</picture>"


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
        kind = f' class="{self.role}"' if self.role else ""
        below = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f"<td{kind}>{escape(self.text)}{below}</td>"


@dataclass(frozen=True)
class Table:
    """A heading row and rows of cells; a row of one cell is a group heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def html(self) -> str:
        head = "".join(f"<th>{escape(c)}</th>" for c in self.columns)
        body = "".join(self._row(row) for row in self.rows)
        return (f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
                f"<tbody>{body}</tbody></table></div>")

    def _row(self, row: Sequence[Cell]) -> str:
        if len(row) == 1:
            return (f'<tr class="group"><td colspan="{len(self.columns)}">'
                    f"{escape(row[0].text)}</td></tr>")
        return f"<tr>{''.join(cell.html() for cell in row)}</tr>"


@dataclass(frozen=True)
class Notes:
    """Short sentences as a list."""

    lines: Sequence[str]

    def html(self) -> str:
        items = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        return f'<ul class="notes">{items}</ul>' if items else ""


@dataclass(frozen=True)
class Facts:
    """Names and values; values that look like commands are set in code."""

    values: Mapping[str, str]
    code: frozenset[str] = frozenset()

    def html(self) -> str:
        pairs = "".join(f"<dt>{escape(k)}</dt><dd>{self._value(k, v)}</dd>"
                        for k, v in self.values.items())
        return f"<dl>{pairs}</dl>"

    def _value(self, key: str, value: str) -> str:
        return f"<code>{escape(value)}</code>" if key in self.code else escape(value)


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read it, and its parts."""

    title: str
    text: str = ""
    parts: Sequence[Row | Table | Notes | Facts] = field(default_factory=tuple)

    @property
    def anchor(self) -> str:
        """The section's address in the page."""
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
