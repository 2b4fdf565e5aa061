"""A profile says what the gate runs on one kind of machine. It is checked before any
stage starts.

Each section configures a stage. A stage without a section does not run; ``[not_run]``
gives the reason. An unknown key is an error, because a misspelt key has no effect.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gatekit.records.stage import PLACEHOLDER
from gatekit.serving.points import Point
from overlaykit.core.documents import from_toml
from overlaykit.core.errors import Finding, InputError

# An image's name. Does not match an option of the engine.
IMAGE = "^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"
FOLDER = Path(__file__).parents[2] / "profiles"

_SERVED = ("gsm8k", "traces", "bench")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Programs that run a word of their command line as a script.
_INTERPRETER = re.compile(
    r"(.*/)?((ba|da|k|z)?sh|python[0-9.]*|perl)|\{(gate_)?python\}"
)
_SCRIPT = re.compile(r"-[A-Za-z]*[ce]")
_KNOWN = ("python", "gate_python", "root", "model", "port", "arm", "folder", "out")
_STAGES = ("numeric", "rebuild", "chain", *_SERVED)

_MOST = 1_000_000_000
_Count = Annotated[int, Meta(ge=1, le=_MOST)]
_Command = Annotated[tuple[str, ...], Meta(min_length=1)]
_Part = Annotated[float, Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Numeric(_Section, frozen=True, kw_only=True):
    """``verify.py --numeric``. ``device`` "cuda" means compiled kernels, also on
    ROCm."""

    device: Literal["cpu", "cuda"] = "cpu"
    full: bool = False
    jobs: _Count = 2


class Rebuild(_Section, frozen=True, kw_only=True):
    """How to install both arms."""

    mode: Literal["venv", "container"]


class Container(_Section, frozen=True, kw_only=True):
    """The image that both arms are built from; ``options`` are options for running it.

    ``aiter`` "carried" applies AITER's series to the image's AITER; "image" leaves that
    AITER as it is, so that S8 keeps its copy unless that AITER already has 3041.
    """

    image: Annotated[str, Meta(pattern=IMAGE)]
    engine: str = "docker"
    aiter: Literal["carried", "image"] = "carried"
    options: tuple[str, ...] = ()


class Chain(_Section, frozen=True, kw_only=True):
    """``microbench.py``. With ``interpreted``, it checks values and copies but has no
    times."""

    interpreted: bool = False
    rounds: _Count = 200
    layers: _Count = 8


class Model(_Section, frozen=True, kw_only=True):
    """The model's files: a path, or a Python package with one file of that suffix."""

    path: str = ""
    package: str = ""
    suffix: str = ""
    sha256: str = ""


class Server(_Section, frozen=True, kw_only=True):
    """The server of an arm.

    Placeholders in ``command`` and ``environment``: {python} (the arm's interpreter),
    {gate_python} (this program's), {root} (this repository), {out} (the run directory),
    {folder} (the stage's folder), {model}, {port} and {arm}. ``port`` 0 is any free
    port. If the server is a stand-in, ``stands_in`` says what it is and what it
    replaces.
    """

    command: _Command
    environment: dict[str, str] = {}
    health: Annotated[str, Meta(pattern="^/")] = "/health"
    deadline_s: _Count = 600
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    stands_in: str = ""


class Gsm8k(_Section, frozen=True, kw_only=True):
    """The questions for each arm. ``order`` is the order of the runs; A is the baseline
    arm. ``files`` and ``prompt`` (a file with another prompt) may begin with {root}."""

    questions: _Count
    parallelism: _Count
    order: Annotated[str, Meta(pattern="^(?=.*A)(?=.*B)[AB]+$")] = "ABBA"
    files: tuple[str, ...] = ("test",)
    prompt: str = ""
    max_tokens: _Count = 2048
    margin: _Part | None = None


class Traces(_Section, frozen=True, kw_only=True):
    """A profiled load, and what its traces must show.

    ``client`` writes the traces to {traces}; the server's placeholders work there too.
    """

    client: _Command
    layers: _Count
    copies_before: Annotated[int, Meta(ge=0, le=_MOST)] = 4
    copies_after: Annotated[int, Meta(ge=0, le=_MOST)] = 0
    server_options: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class Bench(_Section, frozen=True, kw_only=True):
    """``bench.py`` at (ISL, OSL, concurrency) points, one stage for each.

    ``python`` must have ``sglang.bench_serving``; the default is the baseline arm's.
    """

    points: Annotated[tuple[tuple[_Count, _Count, _Count], ...], Meta(min_length=1)]
    python: _Command = ("{python}",)
    options: str = ""
    rounds: _Count = 6
    margin: _Part = 2.0

    @property
    def served(self) -> tuple[Point, ...]:
        return tuple(Point(*point) for point in self.points)


class Profile(_Section, frozen=True, kw_only=True):
    """``name`` is the file's name. ``sha256`` is the digest of its contents, because
    another file may have the same name."""

    about: str
    name: str = ""
    sha256: str = ""
    numeric: Numeric | None = None
    rebuild: Rebuild | None = None
    container: Container | None = None
    chain: Chain | None = None
    model: Model | None = None
    server: Server | None = None
    gsm8k: Gsm8k | None = None
    traces: Traces | None = None
    bench: Bench | None = None
    not_run: dict[str, str] = {}


def load(name: str) -> Profile:
    """Load a profile by its name in ``ci/profiles``, or from a path. Raises
    InputError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise InputError(f"there is no profile {name}; ci/profiles has {known}")
    try:
        contents = path.read_bytes()
        profile = from_toml(contents, Profile)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, msgspec.DecodeError) as error:
        finding = Finding(str(error), path=str(path))
        raise InputError(
            f"{path.name} is not a profile: {error}", (finding,)
        ) from error
    if wrong := tuple(Finding(what, path=str(path)) for what in _missing(profile)):
        what = f"{path.name} is not a valid profile: {wrong[0].what}"
        raise InputError(what, wrong)
    sha256 = hashlib.sha256(contents).hexdigest()
    return msgspec.structs.replace(profile, name=path.stem, sha256=sha256)


def _missing(profile: Profile) -> Iterator[str]:
    """Errors beyond the schema: sections that need or exclude each other."""
    for name in _SERVED:
        if getattr(profile, name) and not (profile.server and profile.rebuild):
            yield f"[{name}] needs [server] and [rebuild]"
    if rebuild := profile.rebuild:
        inside = rebuild.mode == "container"
        if inside != (profile.container is not None):
            verb = "needs" if inside else "does not use"
            yield f"rebuild.mode {rebuild.mode} {verb} [container]"
    order = profile.gsm8k.order if profile.gsm8k else ""
    if order.count("A") != order.count("B"):
        yield f"gsm8k.order {order} must have as many runs of A as of B"
    yield from _missing_of_model(profile)
    for where, text in _texts(profile):
        for name in _placeholders(text):
            if name not in _KNOWN and not (name == "traces" and where == "traces"):
                yield f"{where}: unknown placeholder {{{name}}}"
    yield from _unsafe(profile)
    if (bench := profile.bench) and len(set(bench.points)) < len(bench.points):
        yield "bench.points has a point twice"
    for name in profile.not_run:
        if name not in _STAGES:
            yield f"[not_run]: no stage {name}; the stages are {', '.join(_STAGES)}"
        elif getattr(profile, name) is not None:
            yield f"[not_run] names {name}, which has a section"


def _placeholders(text: str) -> list[str]:
    return [found[1] for found in PLACEHOLDER.finditer(text)]


def _unsafe(profile: Profile) -> Iterator[str]:
    """Places where a path with a quote or a `$` in its name would become a command."""
    server, traces, bench = profile.server, profile.traces, profile.bench
    for where, words in (
        ("server", (*server.command,) if server else ()),
        ("traces", traces.client if traces else ()),
        ("bench", bench.python if bench else ()),
    ):
        for script in _scripts(words):
            for name in dict.fromkeys(_placeholders(script)):
                yield (
                    f"{where}: {{{name}}} is inside a script: pass it as a word after "
                    'the script, which reads it as "$1" (a shell) or sys.argv[1]'
                )
    for where, given in (
        ("server", server.environment if server else {}),
        ("traces", traces.environment if traces else {}),
    ):
        for name in given:
            if not _VARIABLE.fullmatch(name):
                yield f"{where}.environment: {name!r} is not a variable name"
    if bench:
        try:
            shlex.split(bench.options)
        except ValueError as error:
            yield f"bench.options is not a command line: {error}"


def _scripts(words: tuple[str, ...]) -> Iterator[str]:
    """The words that an interpreter runs as a script: those after its -c."""
    runs = False
    for word, following in pairwise(words):
        runs = runs or _INTERPRETER.fullmatch(word) is not None
        if runs and _SCRIPT.fullmatch(word):
            yield following
            runs = False


def _texts(profile: Profile) -> Iterator[tuple[str, str]]:
    """Every text with placeholders, with the name of its section."""
    if server := profile.server:
        yield from (
            ("server", x) for x in (*server.command, *server.environment.values())
        )
    if traces := profile.traces:
        words = (*traces.client, *traces.server_options, *traces.environment.values())
        yield from (("traces", word) for word in words)
    if profile.container:
        yield from (("container", word) for word in profile.container.options)
    if profile.bench:
        yield from (
            ("bench", x) for x in (*profile.bench.python, profile.bench.options)
        )


def _missing_of_model(profile: Profile) -> Iterator[str]:
    model, server = profile.model, profile.server
    if model and bool(model.path) == bool(model.package):
        yield "[model] needs either path or package"
    elif model and bool(model.package) != bool(model.suffix and model.sha256):
        yield "[model] package needs suffix and sha256; path uses neither"
    if server and not model and any("{model}" in word for word in server.command):
        yield "server.command uses {model}, but there is no [model]"
