"""Command lines: how the options of every verb are described, parsed and rejected."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import NoReturn

from overlaykit.core.errors import EXIT_HELP

_MAX = 1_000_000_000
_DIGITS = re.compile(r"[0-9]{1,18}")
_MAX_SHOWN = 40


class UsageError(Exception):
    """A command line that argparse rejects, with the usage."""


class Parser(argparse.ArgumentParser):
    """Raises an error instead of printing it, so that it can be reported as JSON."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.format_usage(), f"{self.prog}: error: {message}")


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    examples: tuple[str, ...],
) -> argparse.ArgumentParser:
    """Add one of a verb's actions; its help has the format of a verb's help."""
    parser = actions.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # --json is accepted before the action and after it.
    add_json(parser, default=argparse.SUPPRESS)
    return parser


def whole_number(least: int = 1, most: int = _MAX) -> Callable[[str], int]:
    """An argparse type for a whole number. Python's ``int`` accepts any length, and
    takes long, or fails, on thousands of digits."""

    def number(text: str) -> int:
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            given = repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
            raise argparse.ArgumentTypeError(
                f"a whole number from {least} to {most}, not {given}"
            )
        return int(text)

    return number


def epilog(examples: Iterable[str]) -> str:
    lines = "\n".join(f"  {line}".rstrip() for line in examples)
    return f"examples:\n{lines}\n\n{EXIT_HELP}"


def add_json(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON document"
    )
