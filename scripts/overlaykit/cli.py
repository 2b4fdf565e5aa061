"""What all verbs share: options, output for people and for programs, exit codes.

A verb returns a :class:`Report`; this module prints it, as text or as one JSON
document, and turns it, or an error, into the exit code.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
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
    """What became of one tree (or of one file that a verb wrote)."""

    target: str
    tree: str
    outcome: str
    hunks: tuple[HunkPlan, ...] = ()
    changed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A verb's answer; with ``--json`` it is the one document on standard output."""

    verb: str
    exit_code: Exit = Exit.DONE
    message: str = ""
    dry_run: bool = False
    results: tuple[Result, ...] = ()
    findings: tuple[Finding, ...] = ()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by spaces: readable in a terminal, a log and a pipe."""
    lines = [tuple(header), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def hunk_table(hunks: Iterable[HunkPlan]) -> str:
    """The landing table."""
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
    """What the overlay lays elsewhere but not into this kind of tree."""
    return [f"  skipped  {path}: not in this kind of tree" for path in result.skipped]


def say(what: str) -> None:
    """A line on standard error, at once: what is being done."""
    print(readable(what), file=sys.stderr, flush=True)


def progress(what: str, done: int, total: int) -> None:
    """Progress on standard error: a line that moves in a terminal, else few lines."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        line = f"\r{one_line(what)}: {done}/{total}"
        print(line, end=end, file=sys.stderr, flush=True)
    elif done == total or done % 1000 == 0:
        say(f"{what}: {done}/{total}")


@dataclass(frozen=True)
class Verb:
    """A program of ``scripts/`` or ``ci/``: its options, what it does, how it shows it.
    One that ``tells`` what it changes says where everything stands when interrupted.

    argparse and not a larger library: a verb starts in the time that quilt needs to
    start, and an image needs one package more than Python, msgspec.
    """

    summary: str
    examples: tuple[str, ...]
    options: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace], Report]
    show: Callable[[Report], str]
    reports_effects: bool = False


def run(verb: Verb) -> NoReturn:
    """Run a verb as a program: parse, call, print, exit.

    Exit code 1 comes from a report alone: it says that a check was made and does not
    hold. Whatever goes wrong on the way ends with another (:mod:`overlaykit` sees to
    what is raised outside of this function).
    """
    overlaykit.mark_running()
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
    """The report; as it is printed, with ``--json`` whole, else its table alone; and
    whether that is JSON. An error is a report too."""
    # A command line that cannot be parsed is answered in the form it asks for, too.
    as_json = "--json" in sys.argv[1:]
    try:
        arguments = _parser(verb).parse_args()
        as_json = arguments.json
        try:
            report = verb.call(arguments)
        except SystemExit as error:
            raise RuntimeError("a part of the program ended it") from error
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
        what = "a defect of this program: it ended without an answer"
        report = _failed(Exit.ENVIRONMENT, what)
    return report, _document(report) if as_json else "", as_json


def _failed(code: Exit, message: str, findings: tuple[Finding, ...] = ()) -> Report:
    """What failed, and what was final by then."""
    findings += tuple(Finding(what, path=place) for place, what in recorded_effects())
    return Report(verb=_name(), exit_code=code, message=message, findings=findings)


def _block_signals_if_changed() -> None:
    """The answer is known. Once something has been changed a signal does not take its
    report back: what is left is to print it."""
    if recorded_effects():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _effects_text() -> str:
    """Where everything stands that this process may have changed."""
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
    """For people: a name with a line end in it must not begin a line of the answer."""
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
    """Make standard output and error take any text, whatever their encoding is.

    The descriptor of one that the caller has closed is taken, so that no file which is
    opened later is written to in its place.
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
            # UTF-8 in every locale: so it is a JSON document.
            sys.stdout.buffer.write(f"{shown}\n".encode())
        else:
            _print_text(report, shown)
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:
            # Keep the interpreter from complaining of the same once more at exit.
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
            # One refusal, however many lines a name or a tool's words make of it.
            message = message.replace("\n", "\n  ")
        done = report.exit_code is Exit.DONE
        print(readable(message), file=sys.stdout if done else sys.stderr)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
