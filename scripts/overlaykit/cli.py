"""What all verbs share: options, output for people and for programs, exit codes.

A verb returns a :class:`Report`; this module prints it, as text or as one JSON
document, and turns it, or an error, into the exit code.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from overlaykit.errors import EXIT_HELP, Exit, Finding, OverlayError
from overlaykit.locking import SIGNALS
from overlaykit.outcome import told
from overlaykit.plan import HunkPlan

ROOT = Path(__file__).resolve().parents[2]


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
    lines = [tuple(header), *(tuple(row) for row in rows)]
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


def progress(what: str, done: int, total: int) -> None:
    """Progress on standard error: a line that moves in a terminal, else few lines."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done % 1000 == 0:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


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
    tells: bool = False


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    examples: tuple[str, ...],
) -> argparse.ArgumentParser:
    """One of a verb's several actions; its help is laid out as a verb's is."""
    parser = actions.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=_epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # Also after the action; what was said before it stays.
    _add_json(parser, default=argparse.SUPPRESS)
    return parser


def _epilog(examples: Iterable[str]) -> str:
    lines = "\n".join(f"  {line}".rstrip() for line in examples)
    return f"examples:\n{lines}\n\n{EXIT_HELP}"


def _add_json(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON document"
    )


def run(verb: Verb) -> NoReturn:
    """Run a verb as a program: parse, call, print, exit."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        description=verb.summary,
        epilog=_epilog(verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.options(parser)
    _add_json(parser, default=False)
    arguments = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        report, shown = _answer(verb, arguments, name)
        _settle()
    except KeyboardInterrupt:
        _settle()
        message = f"interrupted{_standing()}" if verb.tells else "interrupted"
        report = Report(verb=name, exit_code=Exit.INTERRUPTED, message=message)
        shown = ""
    _print(report, shown, arguments.json)
    sys.exit(report.exit_code)


def _answer(verb: Verb, arguments: argparse.Namespace, name: str) -> tuple[Report, str]:
    """The report, and as a person reads it; an error is one too."""
    try:
        report = verb.call(arguments)
        shown = verb.show(report) if report.results and not arguments.json else ""
    except OverlayError as error:
        report, shown = _failed(name, error.exit_code, error.message, error), ""
    except Exception:
        # Python would end with 1, which says that a check was made and does not hold.
        traceback.print_exc()
        what = "a defect of this program: it ended without an answer"
        report, shown = _failed(name, Exit.ENVIRONMENT, what), ""
    return report, shown


def _failed(
    name: str, code: Exit, message: str, error: OverlayError | None = None
) -> Report:
    """What failed, and what was final by then."""
    findings = error.findings if error is not None else ()
    findings += tuple(Finding(what, path=place) for place, what in told())
    return Report(verb=name, exit_code=code, message=message, findings=findings)


def _settle() -> None:
    """The answer is known. Once something has been changed a signal does not take its
    report back: what is left is to print it."""
    if told():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _standing() -> str:
    """Where everything stands that this process may have changed."""
    places = "".join(f"; {place}: {what}" for place, what in told())
    return places or "; nothing was changed"


def _print(report: Report, shown: str, as_json: bool) -> None:
    try:
        if as_json:
            print(msgspec.json.format(msgspec.json.encode(report)).decode())
        else:
            if shown:
                print(shown)
            for finding in report.findings:
                print("\n".join(finding.lines()), file=sys.stderr)
            if report.message:
                ok = report.exit_code is Exit.DONE
                print(report.message, file=sys.stdout if ok else sys.stderr)
        sys.stdout.flush()
    except OSError as error:
        # Keep the interpreter from complaining of the same once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"cannot write the report: {error}", file=sys.stderr)
            sys.exit(Exit.ENVIRONMENT)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
