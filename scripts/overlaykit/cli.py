"""The parts that all verbs share: options, text and JSON output, exit codes.

A verb returns a :class:`Report`; this module prints it as text or as one JSON
document, and exits with the code of the report or the error.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

import overlaykit
from overlaykit.core.documents import to_json
from overlaykit.core.effects import recorded_effects
from overlaykit.core.errors import Exit, Finding, OverlayError
from overlaykit.core.options import Parser, UsageError, add_json, epilog
from overlaykit.core.wording import one_line, readable
from overlaykit.planning.plan import HunkPlan
from overlaykit.trees.locking import SIGNALS

ROOT = Path(__file__).resolve().parents[2]
_LAST_STREAM = 2


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result for one tree, or for one file that a verb wrote."""

    target: str
    tree: str
    outcome: str
    hunks: tuple[HunkPlan, ...] = ()
    changed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # msgspec leaves a field out if it holds the very object that is its default,
        # and on Python 3.10 not every empty tuple is the same object.
        for name in self.__struct_fields__:
            if getattr(self, name) == ():
                msgspec.structs.force_setattr(self, name, ())


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A verb's output; with ``--json`` it is the only document on standard output."""

    verb: str
    exit_code: Exit = Exit.DONE
    message: str = ""
    dry_run: bool = False
    results: tuple[Result, ...] = ()
    findings: tuple[Finding, ...] = ()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned with spaces, readable in a terminal, a log and a pipe."""
    lines = [tuple(header), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def hunk_table(hunks: Iterable[HunkPlan]) -> str:
    """A table of hunks: where each goes and its state."""
    rows = []
    for hunk in hunks:
        state = hunk.state.value + (f" {hunk.shift:+d}" if hunk.shift else "")
        line = f":{hunk.line}" if hunk.line is not None else ""
        rows.append(
            (
                hunk.patch.removesuffix(".patch"),
                f"{hunk.path.rpartition('/')[2]}{line}",
                hunk.scope,
                " ".join(hunk.sites) or "-",
                state,
            )
        )
    return table(("PATCH", "FILE", "SCOPE", "SITES", "OUTCOME"), rows)


def skipped_lines(result: Result) -> list[str]:
    """Lines for the overlay's files that do not exist in this kind of tree."""
    return [f"  skipped  {path}: not in this kind of tree" for path in result.skipped]


def say(what: str) -> None:
    """Print a line about the current work on standard error, at once."""
    print(readable(what), file=sys.stderr, flush=True)


_PAUSE_S = 5
"""Seconds between two lines of progress where nothing is overwritten."""


def progress(what: str, done: int, total: int) -> None:
    """Print progress on standard error: one updating line in a terminal, else a few
    lines."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        line = f"\r{one_line(what)}: {done}/{total}"
        print(line, end=end, file=sys.stderr, flush=True)
    elif done == total or done % 1000 == 0:
        say(f"{what}: {done}/{total}")


class Countdown:
    """Progress with the time that is left, for work of minutes; call it as
    :func:`progress`.

    The first call may count what did not have to be done, so the time is measured from
    there.
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._said = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = now, done
        since, before = self._first
        left = ""
        if before < done < total:
            seconds = (now - since) / (done - before) * (total - done)
            left = f", about {max(round(seconds), 1)} s left"
        line = f"{one_line(what)}: {done}/{total}{left}"
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{line}\033[K", end=end, file=sys.stderr, flush=True)
        elif done == total or now - self._said >= _PAUSE_S:
            self._said = now
            say(line)


@dataclass(frozen=True)
class Verb:
    """A program of ``scripts/`` or ``ci/``: its options, its function, its text output.
    With ``reports_effects``, it names the state of every changed tree if interrupted.

    It uses argparse, not a larger library: a verb starts as fast as quilt does, and
    besides Python an image needs one package, msgspec.
    """

    summary: str
    examples: tuple[str, ...]
    options: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace], Report]
    show: Callable[[Report], str]
    reports_effects: bool = False


def run(verb: Verb) -> NoReturn:
    """Run a verb as a program: parse, call, print, exit.

    Only a report gives exit code 1: a check was made and does not hold. Every error
    gives another code (:mod:`overlaykit` handles errors outside this function).
    """
    overlaykit.mark_running()
    # A verb ends soon, and most of its objects are syntax trees, which are no garbage.
    gc.set_threshold(100_000, 20, 100)
    _open_streams()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        report, shown, as_json = _answer(verb)
        _block_signals_if_changed()
    except KeyboardInterrupt:
        _block_signals_if_changed()
        message = (
            f"interrupted{_effects_text()}" if verb.reports_effects else "interrupted"
        )
        report = Report(verb=_name(), exit_code=Exit.INTERRUPTED, message=message)
        as_json = "--json" in sys.argv[1:]
        shown = _document(report) if as_json else ""
    _print(report, shown, as_json)
    sys.exit(report.exit_code)


def _name() -> str:
    return Path(sys.argv[0]).stem


def _answer(verb: Verb) -> tuple[Report, str, bool]:
    """The report, its text, and whether the text is JSON. The text is the whole report
    as JSON, or only its table. An error becomes a report too."""
    # An error in the command line itself is also reported as JSON if --json is given.
    as_json = "--json" in sys.argv[1:]
    try:
        arguments = _parser(verb).parse_args()
        as_json = arguments.json
        try:
            report = verb.call(arguments)
        except SystemExit as error:
            raise RuntimeError("a function called sys.exit") from error
        if as_json:
            return report, _document(report), True
        return (
            report,
            verb.show(_with_single_line_names(report)) if report.results else "",
            False,
        )
    except UsageError as error:
        usage, message = error.args
        print(readable(usage), end="", file=sys.stderr)
        report = _failed(Exit.USAGE, message)
    except OverlayError as error:
        report = _failed(error.exit_code, error.message, error.findings)
    except Exception:
        print(readable(traceback.format_exc()), end="", file=sys.stderr)
        what = "internal error: this program has a bug"
        report = _failed(Exit.ENVIRONMENT, what)
    return report, _document(report) if as_json else "", as_json


def _failed(code: Exit, message: str, findings: tuple[Finding, ...] = ()) -> Report:
    """The report of an error, with the changes that were final by then."""
    findings += tuple(Finding(what, path=place) for place, what in recorded_effects())
    return Report(verb=_name(), exit_code=code, message=message, findings=findings)


def _block_signals_if_changed() -> None:
    """Block signals if anything was changed, so that the report is still printed."""
    if recorded_effects():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _effects_text() -> str:
    """The state of every tree and file that this process has changed."""
    places = "".join(f"; {place}: {what}" for place, what in recorded_effects())
    return places or "; nothing was changed"


def _parser(verb: Verb) -> argparse.ArgumentParser:
    parser = Parser(
        description=verb.summary,
        epilog=epilog(verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.options(parser)
    add_json(parser, default=False)
    return parser


def _with_single_line_names(report: Report) -> Report:
    """The report with line ends in names escaped: a name must not forge a line."""
    shown = (
        msgspec.structs.replace(
            result,
            tree=one_line(result.tree),
            changed=tuple(map(one_line, result.changed)),
            skipped=tuple(map(one_line, result.skipped)),
        )
        for result in report.results
    )
    return msgspec.structs.replace(report, results=tuple(shown))


def _document(report: Report) -> str:
    return to_json(report).decode()


def _open_streams() -> None:
    """Make standard output and error accept any text in any encoding.

    If the caller has closed a standard stream, its descriptor is opened on /dev/null:
    a file that is opened later must not get it and be written to by accident.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        pass
    if sys.stderr is None:
        sys.stderr = os.fdopen(spare, "w", encoding="utf-8")
    else:
        os.close(spare)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print(report: Report, shown: str, as_json: bool) -> None:
    try:
        if sys.stdout is None:
            raise OSError("standard output is closed")
        if as_json:
            # JSON is UTF-8 in every locale.
            sys.stdout.buffer.write(f"{shown}\n".encode())
        else:
            _print_text(report, shown)
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:
            # Without this the interpreter reports the same error again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"cannot write the report: {error}", file=sys.stderr)
            sys.exit(Exit.ENVIRONMENT)


def _print_text(report: Report, shown: str) -> None:
    if shown:
        print(readable(shown))
    for finding in report.findings:
        print(readable("\n".join(finding.lines())), file=sys.stderr)
    if message := report.message:
        if not report.results:
            # One message, even if a name or a tool's output has several lines.
            message = message.replace("\n", "\n  ")
        done = report.exit_code is Exit.DONE
        print(readable(message), file=sys.stdout if done else sys.stderr)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
