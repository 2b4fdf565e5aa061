"""The two arms: the same installation without the series and with it, and how each is
served. They differ in nothing else."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from gatekit.records.stage import Serve, Step, filled
from gatekit.report.schema import Subject
from gatekit.run.profile import Container, Profile, Server, Traces
from overlaykit.cli import ROOT

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
