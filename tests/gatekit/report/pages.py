"""Reads a page as a tree, and as a browser shows it."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

import pytest

from support.patience import PATIENCE_S

_VOID = {"meta", "br"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.builder = TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"an attribute twice in <{tag}>"
        self.builder.start(tag, given)
        if tag in _VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.builder.data(data)


def parsed(page: str) -> Element:
    """The page as a tree; every element must be closed in order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader.builder.close()


def text(element: Element) -> str:
    """The text of an element; table cells are separated by spaces."""
    return " ".join(" ".join(element.itertext()).split())


def within(page: Element, name: str) -> Element:
    """The element with this id."""
    (found,) = (e for e in page.iter() if e.get("id") == name)
    return found


def marks(element: Element) -> list[str]:
    """The texts of marks shown as good."""
    return [
        text(e)
        for e in element.iter("span")
        if "mark" in e.get("class", "").split() and "good" in e.get("class", "").split()
    ]


_LOOK = """
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const view = page.defaultView;
  const shown = e => e.getClientRects().length > 0;
  const colour = kind => [...page.querySelectorAll(".mark." + kind)].filter(shown)
    .map(e => view.getComputedStyle(e).color);
  document.body.textContent = JSON.stringify({
    text: page.body.innerText,
    stages: [...page.querySelectorAll("#stages tr.stage")].filter(shown)
      .map(e => e.innerText),
    first: page.querySelector("h1").getBoundingClientRect().bottom,
    wide: page.scrollingElement.scrollWidth - view.innerWidth,
    cut: [...page.querySelectorAll(".scroll")].filter(shown)
      .filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel),
    good: colour("good"), absent: colour("absent"),
    drawn: [...page.querySelectorAll("svg")].filter(shown)
      .map(e => e.getBoundingClientRect().width),
  });
};
"""


def seen(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What a reader sees in a window of this width. A second page loads the unchanged
    page in a frame and inspects it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    around = folder / "around.html"
    source = html.escape(page.read_text(encoding="utf-8"), quote=True)
    around.write_text(
        f'<!doctype html><meta charset="utf-8"><script>{_LOOK}</script><body>'
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{source}">'
        "</iframe>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--dump-dom",
         f"--user-data-dir={folder / 'profile'}", around.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert "<body>{" in done.stdout, done.stderr
    output = done.stdout.partition("<body>")[2].partition("</body>")[0]
    found: dict[str, Any] = json.loads(html.unescape(output))
    return found
