#!/usr/bin/env python3
"""The terminal pictures of the README: ``make pictures``.

Each picture is a real run in a pseudo-terminal on a laid-out release, in a temporary
folder; rich draws what came out. Nothing is edited but the temporary path, which is
shown as ``~``.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
WIDTH = 116

# As rich's own, without its fonts from the network.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" \
clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run(folder: Path, command: list[str]) -> str:
    """What a command prints on a terminal."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    with subprocess.Popen(
        command, cwd=folder, stdout=side, stderr=side, stdin=side, env=environment
    ) as process:
        os.close(side)
        text = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            text += piece
        process.wait()
    os.close(main)
    return text.decode().replace("\r\n", "\n")


def last_states(text: str) -> str:
    """Progress lines as they were left: what a carriage return overwrites is gone."""
    lines = (line.rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(lines).rstrip("\n")


def draw(name: str, title: str, parts: list[tuple[str, str]]) -> None:
    """``docs/pictures/NAME.svg``: commands and what they printed."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True,
            color_system="truecolor",
        )  # fmt: skip
        for command, output in parts:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(output), soft_wrap=False)
        FOLDER.mkdir(exist_ok=True)
        svg = console.export_svg(title=title, code_format=_SVG, unique_id=name)
    (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"docs/pictures/{name}.svg")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        python = [sys.executable]

        def verb(shown: str, *options: str) -> tuple[str, str]:
            name, *rest = shown.split()
            command = [*python, str(ROOT / name), *rest, *options]
            text = last_states(run(home, command))
            return shown, text.replace(str(home), "~").replace(str(ROOT), ".")

        fetch = [*python, str(ROOT / "scripts/fetch.py"), "--out", str(home)]
        subprocess.run(fetch, check=True, capture_output=True)
        # Somebody renamed the function that the patch of AITER changes.
        touched = next((home / "aiter").rglob("fused_fp8_quant.py"))
        whole = touched.read_bytes()
        old, new = b"def fused_flatten_fp8_group_quant(", b"def flatten_group_quant("
        touched.write_bytes(whole.replace(old, new))
        draw("refusal", "a refusal", [verb("scripts/apply.py aiter")])
        touched.write_bytes(whole)
        draw("apply", "apply", [verb("scripts/apply.py sglang aiter")])


if __name__ == "__main__":
    main()
