"""Errors that a user can act on, and the exit codes that every verb shares."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from enum import IntEnum

from overlaykit.core.wording import one_line

# A line end whose next line is not indented, and so looks like a line of the report.
_LINE = re.compile(r"\n(?=\S)")


class Exit(IntEnum):
    """Exit codes; the same for every verb, shown in every ``--help``."""

    DONE = 0
    FAILS = 1
    USAGE = 2
    CANNOT_APPLY = 3
    INVALID = 4
    ENVIRONMENT = 5
    INTERRUPTED = 130


EXIT_HELP = """\
exit codes:
  0    done, or the check holds
  1    the check does not hold
  2    usage or bad input
  3    cannot apply: drift, conflict, refused landing, dirty tree
  4    invalid or inconclusive evidence
  5    environment: tool, network, disk, permission; a bug in this program
  130  interrupted"""


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what was expected, what was found, what to do next."""

    what: str
    path: str | None = None
    line: int | None = None
    patch: str | None = None
    hunk: int | None = None
    scope: str | None = None
    site: str | None = None
    expected: str | None = None
    found: str | None = None
    next_step: str | None = None

    def lines(self) -> list[str]:
        """The finding as text, most important line first."""
        # A name is kept in one line: a line end in it could forge a line of the report.
        where = one_line(self.path or "")
        if self.line is not None:
            where += f":{self.line}"
        text = [f"{where}: {self.what}" if where else self.what]
        if self.patch is not None:
            hunk = f", hunk {self.hunk}" if self.hunk is not None else ""
            text.append(f"  patch     {one_line(self.patch)}{hunk}")
        for name, value in (
            ("scope", self.scope),
            ("site", self.site),
            ("expected", self.expected),
            ("found", self.found),
            ("next", self.next_step),
        ):
            if value is not None:
                indented = _LINE.sub(f"\n{' ' * 12}", value)
                text.append(f"  {name:<9} {indented}")
        return text


@dataclass(eq=False)
class OverlayError(Exception):
    """Base of all errors meant for a user; the verbs turn it into their exit code."""

    message: str
    findings: tuple[Finding, ...] = field(default=())

    exit_code = Exit.USAGE

    def __str__(self) -> str:
        return "\n".join([self.message, *(x for f in self.findings for x in f.lines())])


class InputError(OverlayError):
    """The command line, the manifest, the lock or a patch file is wrong."""

    exit_code = Exit.USAGE


class InvalidEvidence(InputError):
    """A measurement or a result contradicts itself and cannot be used."""

    exit_code = Exit.INVALID


class CannotApply(OverlayError):
    """The series cannot be applied to this tree, or removed from it."""

    exit_code = Exit.CANNOT_APPLY


class EnvironmentFailure(OverlayError):
    """A tool, the network, a disk or a permission is missing."""

    exit_code = Exit.ENVIRONMENT


def not_started(
    program: str, error: OSError, install: str = "install it"
) -> EnvironmentFailure:
    """The error for a program that did not start, with the system's reason.

    ``install`` is the next step if the program was not found; every other reason has
    its own next step.
    """
    if isinstance(error, FileNotFoundError) and error.filename == program:
        why, step = f"{program} is not installed", install
    else:
        why = error.strerror or str(error)
        if error.filename is not None and error.filename != program:
            why += f": {error.filename}"
        step = {
            errno.EMFILE: "permit more open files (ulimit -n)",
            errno.ENFILE: "close files: the system's limit is reached",
            errno.EACCES: "permit reading and running it",
            errno.EAGAIN: "end other processes, or permit more (ulimit -u)",
            errno.ENOMEM: "free memory",
            errno.ENOENT: "check that it exists",
        }.get(error.errno or 0, "fix the cause above")
        step += ", then run it again"
    finding = Finding(f"{program} did not start", found=why, next_step=step)
    return EnvironmentFailure(f"cannot run {program}: {why}", (finding,))
