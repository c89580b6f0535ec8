"""One file that needs no other: figures become part of the page, and a check that nothing was left out."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from hyperprep.exceptions import OutputError

_FIGURE = re.compile(
    r'<div class="reportlet">\s*<(?P<kind>img|object)\b[^>]*?\b(?:src|data)="\./(?P<name>[^"]+)"[^>]*>'
    r".*?</div>\s*<small>.*?</small>",
    re.DOTALL,
)
_CSS_ASSET = re.compile(r"""@import\b|url\(\s*["']?(?!data:|#)""", re.IGNORECASE)
_ASSET_ATTRIBUTES = {"src", "srcset", "data", "poster", "xlink:href", "background"}
_ASSET_LINKS = {"link", "image", "use", "script", "feimage", "base"}


def inline_figures(page: str, root: Path) -> str:
    """Replace what NiReports writes for a figure by the figure itself.

    Figures that react (``object``) become elements of the page; still ones (``img``) become data URIs, so
    that their ``id`` attributes do not meet.

    Parameters
    ----------
    page
        HTML assembled by NiReports.
    root
        Folder that its relative names start from.

    Returns
    -------
    The page with every figure inside ``div.hp-figure``.

    Raises
    ------
    OutputError
        A figure is not there.
    """

    def figure(match: re.Match[str]) -> str:
        path = root / match["name"]
        try:
            svg = path.read_text(encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"The figure {path} cannot be read ({error}): write the figures again."
            ) from error
        name = escape(path.name, quote=True)
        if match["kind"] == "object":
            return f'<div class="hp-figure" data-name="{name}">\n{svg[svg.index("<svg") :]}</div>'
        image = f'<img alt="{name}" src="{svg_uri(svg)}">'
        return f'<div class="hp-figure hp-light" data-name="{name}">{image}</div>'

    return _FIGURE.sub(figure, page)


def svg_uri(svg: str) -> str:
    """Write an SVG as a data URI that fits into double quotes; shorter than base64.

    Examples
    --------
    >>> svg_uri('<svg width="1"/>')
    'data:image/svg+xml,%3Csvg width=%221%22/%3E'
    """
    return "data:image/svg+xml," + quote(svg, safe=" !$&()*+,-./:;=?@[]^_`{|}~'")


def assets(page: str) -> list[str]:
    """Whatever a page would fetch besides itself; links that a reader may follow do not count.

    Examples
    --------
    >>> assets('<img src="a.png"><a href="https://x.org">x</a><img src="data:image/png;base64,AA">')
    ['img src=a.png']
    >>> assets('<style>p { background: url(b.png) }</style><link href="c.css">')
    ['style: url(', 'link href=c.css']
    """
    finder = _AssetFinder()
    finder.feed(page)
    finder.close()
    return finder.found


class _AssetFinder(HTMLParser):
    """Collects references in attributes, style elements and style attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            value = (value or "").strip()
            fetched = name in _ASSET_ATTRIBUTES or (name == "href" and tag in _ASSET_LINKS)
            if fetched and value and not value.startswith(("data:", "#")):
                self.found.append(f"{tag} {name}={value[:80]}")
            if name == "style":
                self._check_css(value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._check_css(data)

    def _check_css(self, text: str) -> None:
        self.found += [f"style: {match.group(0)}" for match in _CSS_ASSET.finditer(text)]


def require_self_contained(page: str, path: Path) -> None:
    """Refuse a page that would need anything but itself.

    Raises
    ------
    OutputError
        Something would be fetched.
    """
    found = assets(page)
    if found:
        raise OutputError(
            f"{path} would not open offline: it refers to {', '.join(found[:3])}. Every figure has to be "
            "part of the page; remove the file it came from in the figures folder and write the report again."
        )
