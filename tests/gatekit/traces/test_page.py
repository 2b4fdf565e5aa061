"""The page and the drawing are well formed, self-contained and correct."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.ci_verb import trace_check
from support.profiler_traces import (
    EAGER,
    Event,
    change,
    load,
    needs_traces,
    without_copies,
    write,
)

pytestmark = needs_traces
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A comparison; the kernels' names need escapes."""
    after = write(tmp_path / "after-TP-0.json.gz", without_copies(load(EAGER)))
    before = write(tmp_path / "before-TP-0.json.gz", load(EAGER))
    code, _ = trace_check(
        after, "--baseline", before, "--module", "Qwen3Attention",
        "--expect-layers", "36", "--html", tmp_path / "r.html",
        "--svg", tmp_path / "r.svg",
    )  # fmt: skip
    assert code == 0
    return tmp_path


def test_the_drawing_has_every_kernel_to_scale(written: Path) -> None:
    root = ElementTree.parse(written / "r.svg").getroot()
    titles = [title.text or "" for title in root.iter(f"{_SVG}title")]
    assert len(titles) == 9 + 7
    assert sum("direct_copy_kernel:" in title for title in titles) == 2
    assert sum("at::native" in title for title in titles) == 2
    bars = [
        bar for bar in root.iter(f"{_SVG}rect") if bar.find(f"{_SVG}title") is not None
    ]
    times = [float(re.findall(r"([\d.]+) µs", title)[0]) for title in titles]
    widths = [float(bar.get("width", "0")) + 0.8 for bar in bars]
    scale = widths[0] / times[0]
    for width, time in zip(widths, times, strict=True):
        assert width == pytest.approx(time * scale, abs=0.1)


def test_the_page_needs_nothing_else(written: Path) -> None:
    text = (written / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert open_tags == []
    assert "2 → 0" in text
    assert not list(written.glob(".*.part"))


def test_the_page_lists_unread_traces(tmp_path: Path) -> None:
    """Even if no trace was read: otherwise an old page would still show pass."""
    page = tmp_path / "r.html"
    write(tmp_path / "a-TP-0.json.gz", without_copies(load(EAGER)))
    asked = ("--module", "Qwen3Attention", "--expect-layers", "36", "--html", page)
    code, _ = trace_check(tmp_path, *asked)
    assert (code, "not read" in page.read_text("utf-8")) == (0, False)
    torn = tmp_path / "b-TP-1.json.gz"
    torn.write_bytes((tmp_path / "a-TP-0.json.gz").read_bytes()[:9000])
    for given, passes in ((tmp_path, True), (torn, False)):
        code, _ = trace_check(given, *asked)
        text = page.read_text("utf-8")
        assert code == 2
        assert ('"verdict pass"' in text) is passes
        assert text.index("not read") < text.index(torn.name)
        assert "the gzip stream ends early" in text


def test_kernels_without_a_duration_are_drawn(tmp_path: Path) -> None:
    document = load(EAGER)

    def edit(event: Event) -> bool:
        known = event.get("cat") == "kernel"
        if known:
            event["dur"] = 0
        return known

    code, _ = trace_check(
        write(tmp_path / "t.json", change(document, edit)), "--module",
        "Qwen3Attention", "--expect-layers", "36", "--svg", tmp_path / "r.svg",
    )  # fmt: skip
    assert code == 1
    titles = [e.text or "" for e in ElementTree.parse(tmp_path / "r.svg").iter(
        f"{_SVG}title"
    )]  # fmt: skip
    assert len(titles) == 9
    assert all(": 0.00 µs" in title for title in titles)
