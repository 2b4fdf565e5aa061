#!/usr/bin/env python3
"""Install one arm of the gate: the pinned release without or with the series.

``venv`` makes a virtual environment from the pinned packages; ``container`` makes an
image from upstream's image. Both arms come from the same source, and the verb checks
that they differ in the series alone. An arm that fails the check must not be used.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it sees to what cannot be imported)

# isort: split
from gatekit.arms import container, environment
from gatekit.arms.results import ARMS, Environment, Image
from overlaykit.cli import ROOT, Report, Verb, run, say
from overlaykit.core.errors import InputError
from overlaykit.core.options import add_action

_VENV_EXAMPLES = (
    "ci/rebuild.py venv --arm baseline --out build/arms/baseline",
    "ci/rebuild.py venv --arm patched --out build/arms/patched --python python3.11",
)
_CONTAINER_EXAMPLES = (
    "ci/rebuild.py container --arm patched --tag x-scale-patched --dry-run \\",
    "    --image lmsysorg/sglang:v0.5.11-rocm720-mi35x",
    "ci/rebuild.py container --arm baseline --tag x-scale-baseline --engine podman \\",
    "    --image lmsysorg/sglang:v0.5.11-rocm720-mi35x",
)


def options(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _venv_options(actions)
    _container_options(actions)


def _venv_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    what = "make a virtual environment from the pinned packages, without PyTorch"
    parser = add_action(actions, "venv", what, _VENV_EXAMPLES)
    _arm_option(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where to make it; a complete environment is kept, an incomplete one is "
        "made again",
    )
    parser.add_argument(
        "--python",
        metavar="PYTHON",
        default=sys.executable,
        help="the interpreter to make it with (default: this one)",
    )


def _container_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    what = "build an image from upstream's image with ci/container/Dockerfile"
    parser = add_action(actions, "container", what, _CONTAINER_EXAMPLES)
    _arm_option(parser)
    parser.add_argument(
        "--image",
        required=True,
        help="upstream's image, by tag or digest; it must have the pinned SGLang",
    )
    parser.add_argument("--tag", required=True, help="the name of the new image")
    parser.add_argument(
        "--engine",
        choices=container.ENGINES,
        default=container.ENGINES[0],
        help="the container engine (default: %(default)s)",
    )
    parser.add_argument(
        "--aiter",
        choices=container.AITER,
        default=container.AITER[0],
        help="carried (default): apply the series to the image's AITER too, and refuse "
        "another release of AITER; image: leave the image's AITER as it is, so that "
        "site S8 keeps its copy if the flatten kernel's wrapper has no transpose_scale",
    )


def _arm_option(parser: ArgumentParser) -> None:
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; change nothing"
    )


def rebuild(arguments: Namespace) -> Report:
    """Make the arm, or show how."""
    if arguments.action == "venv":
        wanted = environment.Wanted(
            ROOT, arguments.arm, arguments.out.absolute(), arguments.python
        )
        how = environment.dry_run if arguments.dry_run else environment.rebuild
        return how(wanted, say)
    for name, given in (("image", arguments.image), ("tag", arguments.tag)):
        if not re.fullmatch(container.NAME, given):
            raise InputError(f"--{name} must be the name of an image, not {given!r}")
    build = container.Build(
        ROOT,
        arguments.arm,
        arguments.image,
        arguments.tag,
        arguments.engine,
        arguments.aiter,
    )
    return container.dry_run(build) if arguments.dry_run else container.rebuild(build)


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n\n".join(
        _show_environment(one) if isinstance(one, Environment) else _show_image(one)
        for one in report.results
        if isinstance(one, Environment | Image)
    )


def _show_environment(one: Environment) -> str:
    lines = [
        f"{one.arm}: {one.outcome}  ({one.tree})",
        f"  series    {one.series}",
        f"  python    {one.python}",
        *(f"  package   {name}  sha256 {sha}" for name, sha in one.packages.items()),
        *(f"  tree      {digest}  {name}" for name, digest in one.digests.items()),
        *(f"  differs   {path}" for path in one.differs),
        *(f"  {note}" for note in one.notes),
    ]
    if one.digests and not one.differs:
        lines.append("  differs   no file differs from the packages")
    return "\n".join(lines)


def _show_image(one: Image) -> str:
    lines = [
        f"{one.arm}: {one.outcome}  ({one.tree})",
        f"  series    {one.series}",
        f"  from      {one.base or one.image}",
    ]
    if one.id:
        lines.append(f"  id        {one.id}")
    return "\n".join([*lines, *(f"  {note}" for note in one.notes), *one.commands])


if __name__ == "__main__":
    run(
        Verb(
            "Install one arm of the gate, as a virtual environment or as an image: the "
            "pinned release without the series (baseline) or with it (patched).",
            (_VENV_EXAMPLES[0], *_CONTAINER_EXAMPLES[:2]),
            options,
            rebuild,
            show,
        )
    )
