"""The commands that install and serve the two arms, which differ in the series
alone."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from gatekit.arms.results import ARMS
from gatekit.records.stage import Serve, Step, filled
from gatekit.report.schema import Subject
from gatekit.run.profile import Container, Profile, Server, Traces
from overlaykit.cli import ROOT

GATE_PYTHON = sys.executable
# ci/container/Dockerfile installs the packages that the verbs need here.
_VENDOR = "/opt/pretransposed-x-scale/vendor"


@dataclass(frozen=True)
class Arms:
    """Builds the commands. ``installed`` is the rebuild stage's folder."""

    profile: Profile
    subject: Subject
    installed: Path
    model: str

    def rebuilds(self) -> tuple[Step, ...]:
        """The steps that install both arms."""
        return tuple(
            Step(arm, (GATE_PYTHON, "ci/rebuild.py", *self._options(arm), "--json"))
            for arm in ARMS
        )

    def _options(self, arm: str) -> tuple[str, ...]:
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
        assert self.profile.server is not None, "load() checks this"
        return self.profile.server

    def tag(self, arm: str) -> str:
        """The image's name, with a digest of everything in it. A node keeps the images
        of many runs; the digest keeps one run from serving another run's image."""
        c, subject = self.container, self.subject
        parts = (subject.series, subject.code, *((c.image, c.aiter) if c else ()))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
        return f"pretransposed-x-scale-{arm}:{digest}"

    def serve(self, arm: str, traces: Traces | None = None) -> Serve:
        """A server of this arm; with ``traces``, also the options for profiling."""
        extra = traces.server_options if traces else ()
        environment = {**self.server.environment}
        environment |= traces.environment if traces else {}
        environment = {k: self.fill(v, arm) for k, v in environment.items()}
        command = tuple(self.fill(w, arm) for w in (*self.server.command, *extra))
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
        """A step that runs a command against a server of this arm. It collects results
        for a later step to decide on. The command for traces is not one of our verbs,
        so it prints no report."""
        return Step(
            name,
            command,
            serve=self.serve(arm, traces),
            reports=traces is None,
            decides=False,
            remove=self.remove(arm),
        )

    def _container_name(self, arm: str) -> str:
        return f"gate-{arm}-{{run}}"

    def remove(self, *arms: str) -> tuple[tuple[str, ...], ...]:
        """Commands that remove the servers' containers, if servers run in
        containers."""
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
        """The command wrapped to run in the arm's image, or unchanged without
        images."""
        c = self.container
        if c is None:
            return command
        named = ("--name", name) if name else ()
        given = [w for k, v in environment.items() for w in ("--env", f"{k}={v}")]
        options = tuple(
            self.fill(word, arm)
            for word in c.options
            if self.model or "{model}" not in word
        )
        run = (c.engine, "run", "--rm", "--init", *named, *options, *given)
        return (*run, self.tag(arm), *command)

    def verb(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """One of our verbs, run in the patched image with the packages it needs."""
        environment = {"PYTHONPATH": _VENDOR}
        file = str(ROOT / command[1])
        without_model = replace(self, model="")
        words = ("python3", file, *command[2:])
        return without_model.within("patched", words, environment)

    def fill(self, text: str, arm: str) -> str:
        """Fill in the placeholders known now; those known only at run time stay."""
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
