"""A stage as data: its needs, its steps, and the inputs that its result depends on."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overlaykit.core.wording import pasteable, quoted


@dataclass(frozen=True)
class Serve:
    """A server that runs for the duration of one step."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    deadline_s: int = 600
    port: int = 0

    @property
    def line(self) -> str:
        """The command line, with its environment set by ``env``."""
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return command_line([*(["env", *given] if given else []), *self.command])


@dataclass(frozen=True)
class Step:
    """One command line.

    ``reports``: the command prints a verb's report, which is kept as evidence.
    ``decides``: its exit code is a verdict, which is kept. Otherwise any exit code but
    0 is an error, and the next run repeats the stage. ``remove`` are commands that
    remove containers which a killed server may leave behind.

    Placeholders are filled in when the step runs, see :func:`placeholders`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    serve: Serve | None = None
    reports: bool = True
    decides: bool = True
    remove: tuple[tuple[str, ...], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that decides what the step does."""
        served = (self.serve.line, self.serve.health) if self.serve else ()
        given = (f"{name}={value}" for name, value in self.environment.items())
        return (self.name, *given, *self.command, *served)

    def server_log(self, folder: Path) -> Path:
        """The log of the step's server."""
        return folder / f"{self.name}.server.log"

    def lines(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """The step as shell commands, including the server's start and end. If the
        server ends or is not healthy in time, the step's own command does not run."""
        own = _line(self.command, self.environment, known)
        after = (f"{_line(words, {}, known)} >/dev/null 2>&1" for words in self.remove)
        if self.serve is None:
            return (own, *after)
        serve = self.serve
        log = quoted(str(self.server_log(Path(known["folder"]))))
        url = quoted(filled(f"http://127.0.0.1:{{port}}{serve.health}", known))
        wait = f"until curl -fso /dev/null {url}; do kill -0 $0 || exit; sleep 1; done"
        start = _line(serve.command, serve.environment, known)
        return (
            f"{start} >>{log} 2>&1 & server=$!",
            f"timeout {serve.deadline_s} sh -c {quoted(wait)} $server &&",
            own,
            "kill $server; wait $server",
            *after,
        )


@dataclass(frozen=True)
class Stage:
    """``why_not`` is the reason if the stage does not run at all. ``inputs`` are
    digests of what the commands do not name. ``port`` is the servers' port; 0 means
    any."""

    name: str
    title: str
    needs: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    stands_in: str = ""
    why_not: str = ""
    port: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The words of all steps, with their placeholders."""
        return tuple(word for step in self.steps for word in step.words)

    def lines(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """The shell commands of all steps."""
        return tuple(line for step in self.steps for line in step.lines(known))


PLACEHOLDERS = ("folder", "port", "run", "out")


def placeholders(folder: Path, port: object) -> dict[str, str]:
    """The values that are known only when a stage runs. {run} is a name unique to this
    run, for things outside its folder such as containers."""
    run = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    # The run directory is two levels above a stage's folder.
    values = (str(folder), str(port), run, str(folder.parents[1]))
    return dict(zip(PLACEHOLDERS, values, strict=True))


# Does not match JSON or a shell's ${...}. The suffix :q marks a placeholder inside
# single quotes.
PLACEHOLDER = re.compile(r"(?<!\$)\{([a-z_]+)(:q)?\}")
_WHEN_IT_RUNS = re.compile(r"(?<!\$)\{(" + "|".join(PLACEHOLDERS) + r")\}")


def filled(text: str, known: Mapping[str, str]) -> str:
    """The text with known placeholders replaced in one pass, so that braces in a value
    are not replaced again. Other braces, as in JSON, stay."""

    def replacement(found: re.Match[str]) -> str:
        value = known.get(found[1])
        if value is None:
            return found[0]
        return value.replace("'", "'\"'\"'") if found[2] else value

    return PLACEHOLDER.sub(replacement, text)


def command_line(words: Iterable[str]) -> str:
    """Words as one command line whose placeholders are filled in later. Each word stays
    one word, because a placeholder inside quotes is marked for quoting."""
    return _WHEN_IT_RUNS.sub(r"{\1:q}", shlex.join(words))


def holds_placeholder(place: str) -> bool:
    """Whether a path contains text that looks like a placeholder."""
    return PLACEHOLDER.search(place) is not None


def _line(
    command: tuple[str, ...], environment: Mapping[str, str], known: Mapping[str, str]
) -> str:
    given = {n: quoted(filled(v, known)) for n, v in environment.items()}
    words = pasteable(filled(word, known) for word in command)
    return " ".join([*(f"{n}={v}" for n, v in given.items()), words])
