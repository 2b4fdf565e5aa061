#!/usr/bin/env python3
"""Install one arm of the gate: the pinned release, without the series or with it.

``venv`` makes a virtual environment of the pinned packages, ``container`` an image from
upstream's own. Either way both arms come from the same source and differ in the series
alone, which is checked; an arm that does not verify is no arm.
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
    what = "a virtual environment of the pinned packages; no PyTorch"
    parser = add_action(actions, "venv", what, _VENV_EXAMPLES)
    _arm_option(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where; an environment that is whole is kept, another is made anew",
    )
    parser.add_argument(
        "--python",
        metavar="PYTHON",
        default=sys.executable,
        help="the one to make it with (default: this one)",
    )


def _container_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    what = "an image from upstream's, by ci/container/Dockerfile"
    parser = add_action(actions, "container", what, _CONTAINER_EXAMPLES)
    _arm_option(parser)
    parser.add_argument(
        "--image",
        required=True,
        help="upstream's, by tag or digest; the SGLang in it is of the pinned release",
    )
    parser.add_argument("--tag", required=True, help="the arm's name")
    parser.add_argument(
        "--engine",
        choices=container.ENGINES,
        default=container.ENGINES[0],
        help="default: %(default)s",
    )
    parser.add_argument(
        "--aiter",
        choices=container.AITER,
        default=container.AITER[0],
        help="carried (default): the series goes on the image's AITER as well, and an "
        "AITER of another release is refused; image: it stays as it is, and where its "
        "flatten kernel's wrapper has no transpose_scale, site S8 keeps its copy",
    )


def _arm_option(parser: ArgumentParser) -> None:
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, do nothing"
    )


def rebuild(arguments: Namespace) -> Report:
    """Make the arm, or say how."""
    if arguments.action == "venv":
        wanted = environment.Wanted(
            ROOT, arguments.arm, arguments.out.absolute(), arguments.python
        )
        how = environment.foretell if arguments.dry_run else environment.rebuild
        return how(wanted, say)
    for name, given in (("image", arguments.image), ("tag", arguments.tag)):
        if not re.fullmatch(container.NAME, given):
            raise InputError(f"--{name} is the name of an image, not {given!r}")
    build = container.Build(
        ROOT,
        arguments.arm,
        arguments.image,
        arguments.tag,
        arguments.engine,
        arguments.aiter,
    )
    return container.foretell(build) if arguments.dry_run else container.rebuild(build)


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
        lines.append("  differs   in nothing from the packages")
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
            "Install one arm of the gate, in a virtual environment or as an image: the "
            "pinned release without the series (baseline) or with it (patched).",
            (_VENV_EXAMPLES[0], *_CONTAINER_EXAMPLES[:2]),
            options,
            rebuild,
            show,
        )
    )
