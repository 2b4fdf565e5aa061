"""A stage as data: what it needs, what it runs, and what that depends on."""

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
    """A server for the time of one step."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    deadline_s: int = 600
    port: int = 0

    @property
    def line(self) -> str:
        """As one command, its environment within it."""
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return joined([*(["env", *given] if given else []), *self.command])


@dataclass(frozen=True)
class Step:
    """One command line. ``reports``: it prints a verb's report, kept as evidence.
    ``judges``: its exit code is a judgement; else whatever is not 0 is an error, and
    the stage is run again, where a judgement would stand.
    ``remove`` are containers that a server which was not ended in order may leave.

    Placeholders are filled in when it runs, see :func:`placeholders`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    serve: Serve | None = None
    reports: bool = True
    judges: bool = True
    remove: tuple[tuple[str, ...], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All that decides what it does."""
        served = (self.serve.line, self.serve.health) if self.serve else ()
        given = (f"{name}={value}" for name, value in self.environment.items())
        return (self.name, *given, *self.command, *served)

    def server_log(self, folder: Path) -> Path:
        """Where the server's own words go."""
        return folder / f"{self.name}.server.log"

    def lines(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """As a shell would take them, with the server's start and end. A server that
        ends, or is not healthy in time, is asked nothing."""
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
    """``why_not``: the reason for which it is not run at all. ``inputs`` are digests
    of what its commands do not name. ``port`` is its servers', 0 any."""

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
        """All that is run, as it stands before it is filled in."""
        return tuple(word for step in self.steps for word in step.words)

    def lines(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """Of all steps."""
        return tuple(line for step in self.steps for line in step.lines(known))


PLACEHOLDERS = ("folder", "port", "run", "out")


def placeholders(folder: Path, port: object) -> dict[str, str]:
    """What is not known before a stage runs. {run} names what is this run's alone and
    cannot lie in its folder: nobody but who holds that takes it away."""
    run = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    # Two up from a stage's folder: the run directory.
    values = (str(folder), str(port), run, str(folder.parents[1]))
    return dict(zip(PLACEHOLDERS, values, strict=True))


# None of it is JSON's, nor a shell's ${...}. With :q it stands between the single
# quotes of a word that is quoted already.
PLACEHOLDER = re.compile(r"(?<!\$)\{([a-z_]+)(:q)?\}")
_WHEN_IT_RUNS = re.compile(r"(?<!\$)\{(" + "|".join(PLACEHOLDERS) + r")\}")


def filled(text: str, known: Mapping[str, str]) -> str:
    """Known placeholders replaced, all at once: what a path holds is none. Braces of
    anything else (JSON) stay."""

    def told(found: re.Match[str]) -> str:
        value = known.get(found[1])
        if value is None:
            return found[0]
        return value.replace("'", "'\"'\"'") if found[2] else value

    return PLACEHOLDER.sub(told, text)


def joined(words: Iterable[str]) -> str:
    """Words as one command line, of which some are filled in later: whatever they are
    then, they stay the words that they are. A word with a brace is in single quotes."""
    return _WHEN_IT_RUNS.sub(r"{\1:q}", shlex.join(words))


def holds_placeholder(place: str) -> bool:
    """Whether a path would be taken for one that is still to be filled in."""
    return PLACEHOLDER.search(place) is not None


def _line(
    command: tuple[str, ...], environment: Mapping[str, str], known: Mapping[str, str]
) -> str:
    given = {n: quoted(filled(v, known)) for n, v in environment.items()}
    words = pasteable(filled(word, known) for word in command)
    return " ".join([*(f"{n}={v}" for n, v in given.items()), words])
