"""An arm as an image: upstream's own, with this repository's tools, and the series.

Both arms are built by one recipe, ``ci/container/Dockerfile``, from one image; a tag is
turned into a digest first, so that it cannot move between the two. Nothing is compiled
or installed anew, and the recipe says why.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from gatekit.arms.results import Image, series_of
from overlaykit.cli import Report
from overlaykit.core.documents import from_json
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, not_started
from overlaykit.core.wording import pasteable

# No option of an engine's.
NAME = "[A-Za-z0-9][A-Za-z0-9._/:@-]*"
ENGINES = ("docker", "podman")
AITER = ("carried", "image")
_DOCKERFILE = "ci/container/Dockerfile"
_NOTHING = (
    "nothing is reinstalled: the image's SGLang and AITER are editable installs of the "
    "trees that are changed, new modules included; no compiled file comes from a file "
    "that the series touches, and Triton compiles at first use"
)


@dataclass(frozen=True)
class Build:
    """An arm to be built; ``aiter`` says whether the series goes on AITER as well."""

    root: Path
    arm: str
    image: str
    tag: str
    engine: str
    aiter: str

    def inspection(self, image: str) -> list[str]:
        return [self.engine, "image", "inspect", image]

    def pull(self) -> list[str]:
        return [self.engine, "pull", self.image]

    def build(self, base: str) -> list[str]:
        """``base`` is the image by digest, where that is known."""
        given = {
            "IMAGE": base,
            "SERIES": series_of(self.arm, self.root),
            "AITER_SERIES": self.aiter,
        }
        return [
            *(self.engine, "build", "--file", str(self.root / _DOCKERFILE)),
            *("--target", self.arm, "--tag", self.tag),
            *(w for k, v in given.items() for w in ("--build-arg", f"{k}={v}")),
            str(self.root),
        ]


class _Inspected(msgspec.Struct, rename={"id": "Id", "digests": "RepoDigests"}):
    """What ``image inspect`` says, of either engine."""

    id: str
    digests: list[str] | None = None


def foretell(build: Build) -> Report:
    """The engine's commands, none of them run."""
    commands = (
        f"{pasteable(build.inspection(build.image))} || {pasteable(build.pull())}",
        "# with the digest that the inspection shows in place of the tag:",
        pasteable(build.build(build.image)),
        pasteable(build.inspection(build.tag)),
    )
    result = Image(
        target="container",
        tree=build.tag,
        outcome="would be built",
        arm=build.arm,
        series=series_of(build.arm, build.root),
        image=build.image,
        commands=commands,
        notes=(_NOTHING,),
    )
    return Report(verb="rebuild", dry_run=True, results=(result,))


def rebuild(build: Build) -> Report:
    """Build it; the recipe ends with the checks, and so does the build."""
    base = _inspect(build, build.image)
    if base is None:
        _run(build.pull(), "the image cannot be had")
        base = _inspect(build, build.image)
    digests = (base.digests or []) if base is not None else []
    pinned = digests[0] if digests else build.image
    if _call(build.build(pinned), stdout=sys.stderr).returncode:
        finding = Finding(
            "the build failed",
            path=_DOCKERFILE,
            expected="the series applied and verified on the image's own trees",
            found="what the engine said is above, the verbs' findings with it",
            next_step="an AITER of another release: scripts/rebase.py --target aiter "
            "--clone, or --aiter image; an SGLang of another release: another --image",
        )
        return Report(
            verb="rebuild",
            exit_code=Exit.FAILS,
            message="no arm was made",
            findings=(finding,),
        )
    made = _inspect(build, build.tag)
    result = Image(
        target="container",
        tree=build.tag,
        outcome="built",
        arm=build.arm,
        series=series_of(build.arm, build.root),
        image=build.image,
        base=pinned,
        id=made.id if made else "",
        commands=(pasteable(build.build(pinned)),),
        notes=(_NOTHING,),
    )
    return Report(verb="rebuild", results=(result,))


def _inspect(build: Build, image: str) -> _Inspected | None:
    """None where the engine has no such image."""
    done = _call(
        build.inspection(image), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if done.returncode:
        return None
    try:
        return from_json(done.stdout, list[_Inspected])[0]
    except (msgspec.DecodeError, IndexError) as error:
        what = f"{build.engine} image inspect says what is not understood: {error}"
        raise EnvironmentFailure(what) from error


def _call(
    command: list[str], stdout: int | TextIO, stderr: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdout=stdout, stderr=stderr, check=False)
    except OSError as error:
        step = "run this where the engine is, or name another with --engine"
        raise not_started(command[0], error, step) from error


def _run(command: list[str], what: str) -> None:
    done = _call(command, stdout=sys.stderr)
    if done.returncode:
        step = "log in to the registry, or name an image that is here"
        finding = Finding(f"exit code {done.returncode}", next_step=step)
        raise EnvironmentFailure(f"{what}: {pasteable(command)}", (finding,))
