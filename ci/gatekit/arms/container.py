"""Builds an arm as an image: upstream's image, this repository's tools, the series.

One recipe, ``ci/container/Dockerfile``, builds both arms from one image. The tag is
resolved to a digest first, so that it cannot move between the two builds. The build
compiles and reinstalls nothing; the recipe explains why.
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

# Does not match an option of the engine.
NAME = "[A-Za-z0-9][A-Za-z0-9._/:@-]*"
ENGINES = ("docker", "podman")
AITER = ("carried", "image")
_DOCKERFILE = "ci/container/Dockerfile"
_NOT_REINSTALLED = (
    "nothing is reinstalled: the image's SGLang and AITER are editable installs, so "
    "Python imports the changed trees, new modules included; no compiled file is built "
    "from a file that the series changes, and Triton compiles kernels at first use"
)


@dataclass(frozen=True)
class Build:
    """An arm to build; ``aiter`` says whether the series is applied to AITER too."""

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
        """The build command. ``base`` is the image, by digest if it is known."""
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
    """The output of ``image inspect``, the same for both engines."""

    id: str
    digests: list[str] | None = None


def dry_run(build: Build) -> Report:
    """Report the engine's commands without running them."""
    commands = (
        f"{pasteable(build.inspection(build.image))} || {pasteable(build.pull())}",
        "# with the digest from the inspection instead of the tag:",
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
        notes=(_NOT_REINSTALLED,),
    )
    return Report(verb="rebuild", dry_run=True, results=(result,))


def rebuild(build: Build) -> Report:
    """Build the arm's image. The recipe ends with the checks of the arm."""
    base = _inspect(build, build.image)
    if base is None:
        _run(build.pull(), "the image cannot be pulled")
        base = _inspect(build, build.image)
    digests = (base.digests or []) if base is not None else []
    pinned = digests[0] if digests else build.image
    if _call(build.build(pinned), stdout=sys.stderr).returncode:
        finding = Finding(
            "the build failed",
            path=_DOCKERFILE,
            expected="the series applied and verified on the image's own trees",
            found="the engine's output above, with the findings of the verbs",
            next_step="if the image has another release of AITER: scripts/rebase.py "
            "--target aiter --clone, or --aiter image; if it has another release of "
            "SGLang: choose another --image",
        )
        return Report(
            verb="rebuild",
            exit_code=Exit.FAILS,
            message="the arm was not built",
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
        notes=(_NOT_REINSTALLED,),
    )
    return Report(verb="rebuild", results=(result,))


def _inspect(build: Build, image: str) -> _Inspected | None:
    """The image's ids, or None if the engine does not have the image."""
    done = _call(
        build.inspection(image), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if done.returncode:
        return None
    try:
        return from_json(done.stdout, list[_Inspected])[0]
    except (msgspec.DecodeError, IndexError) as error:
        what = f"cannot parse the output of {build.engine} image inspect: {error}"
        raise EnvironmentFailure(what) from error


def _call(
    command: list[str], stdout: int | TextIO, stderr: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdout=stdout, stderr=stderr, check=False)
    except OSError as error:
        step = "run this on a machine with the engine, or choose another with --engine"
        raise not_started(command[0], error, step) from error


def _run(command: list[str], what: str) -> None:
    done = _call(command, stdout=sys.stderr)
    if done.returncode:
        step = "log in to the registry, or name a local image"
        finding = Finding(f"exit code {done.returncode}", next_step=step)
        raise EnvironmentFailure(f"{what}: {pasteable(command)}", (finding,))
