"""One self-contained HTML page: sections, figures as data URIs, tables; it works offline and on a phone."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ccan.figures import rendered, save_figure
from ccan.files import write_text
from ccan.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_ROWS = 12
"""Rows of a table on the page; the whole is in its CSV."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2026;--quiet:#5d646d;--line:#d9dde2;--paper:#fff;--soft:#f5f7f9}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--quiet:#a3abb5;--line:#3a414a;--paper:#15181c;--soft:#1d2126}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.7rem}h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}h3{margin:1.6rem 0 .3rem}
nav a{margin-right:1rem}a{color:#0072b2}@media(prefers-color-scheme:dark){a{color:#56b4e9}}
figure{margin:.6rem 0}figure img{max-width:100%;height:auto;background:#fff;border-radius:4px}
figcaption,.note{color:var(--quiet);font-size:.9rem;max-width:60rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}th,td{padding:.2rem .6rem;text-align:left;
border-bottom:1px solid var(--line);white-space:nowrap}td:last-child{white-space:normal;min-width:12rem}
td.n:last-child{min-width:0}.n{text-align:right;font-variant-numeric:tabular-nums}
th{background:var(--soft)}pre{background:var(--soft);padding:.8rem;white-space:pre-wrap;font-size:.85rem}
"""


@dataclass
class Page:
    """A page that grows from top to bottom, and the folder that its figures and tables also go to.

    Args:
        title: of the page.
        folder: where `report.html`, figures and tables are written.
        interactive: whether plotly figures are put in (plotly.js once, some megabytes).
    """

    title: str
    folder: Path
    interactive: bool = False
    _body: list[str] = field(default_factory=list)
    _links: list[tuple[str, str]] = field(default_factory=list)
    _plotly: bool = False

    def section(self, title: str) -> None:
        """Begin a section, which the page's head links to."""
        anchor = f"s{len(self._links) + 1}"
        self._links.append((anchor, title))
        self._body.append(f'<h2 id="{anchor}">{html.escape(title)}</h2>')

    def heading(self, title: str) -> None:
        """A smaller heading."""
        self._body.append(f"<h3>{html.escape(title)}</h3>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._body.append(f'<p class="note">{html.escape(text)}</p>')

    def lines(self, text: str) -> None:
        """Text whose columns matter."""
        self._body.append(f"<pre>{html.escape(text)}</pre>")

    def figure(self, figure: Figure, name: str, caption: str, photos: bool = False) -> None:
        """A figure, also written as NAME.png and NAME.svg; ``photos`` = it holds photographs."""
        save_figure(figure, self.folder / name)
        kind = "webp" if photos else "svg+xml"
        data = _webp(rendered(figure, "png")) if photos else rendered(figure, "svg")
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        text = html.escape(caption)
        self._body.append(
            f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )

    def table(self, table: Table, folder: str = "tables", rows: int = SHOWN_ROWS) -> None:
        """A table's head and note; the whole is written as CSV and JSON."""
        table.save(self.folder / folder)
        self.text(table.note)
        self._body.append(f'<div class="scroll">{table.head(rows).to_html()}</div>')
        if len(table) > rows:
            self.text(f"{rows} of {len(table)} rows; all are in {folder}/{table.name}.csv.")
        if not len(table):
            self.text("Nothing was found.")

    def plotly(self, figure: object, caption: str) -> None:
        """An interactive figure, only where the page is to have any."""
        if not self.interactive:
            return
        from plotly.io import to_html

        made = to_html(figure, full_html=False, include_plotlyjs=not self._plotly)
        self._plotly = True
        self._body.append(f"<figure>{made}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self) -> Path:
        """Write the page → its path."""
        links = "".join(
            f'<a href="#{anchor}">{html.escape(title)}</a>' for anchor, title in self._links
        )
        path = self.folder / "report.html"
        write_text(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{_STYLE}</style></head><body><h1>{html.escape(self.title)}</h1><nav>{links}</nav>"
            f"{''.join(self._body)}</body></html>\n",
        )
        return path


def _webp(png: bytes) -> bytes:
    """Photographs at a tenth of the bytes."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as opened:
        opened.convert("RGB").save(out, "WEBP", quality=82, method=6)
    return out.getvalue()
