"""The options of ``ci/bench.py``."""

from __future__ import annotations

import platform
import shlex
import sys
from argparse import (
    ArgumentParser,
    _SubParsersAction,
)
from pathlib import Path

from gatekit.serving.command import ARMS
from overlaykit.cli import ROOT
from overlaykit.core.options import add_action, whole_number

# The only definition of the ten points.
PROFILE = ROOT / "ci" / "profiles" / "mi355x-glm51.toml"

RUN_EXAMPLES = (
    "ci/bench.py run --baseline http://a:30000 --patched http://b:30000 --out out \\",
    "    --dry-run",
    "ci/bench.py run --baseline http://localhost:9000 --baseline-start ./serve-a.sh \\",
    "    --patched http://localhost:9000 --patched-start ./serve-b.sh --out out",
    "",
    "To resume an incomplete benchmark, give the same command again.",
    "One point alone, to spread points over nodes; both arms on one node:",
    "",
    "ci/bench.py run --points 8192/1024/4 --out out-4 \\",
    "    --baseline http://localhost:9000 --patched http://localhost:9001",
)
COMPARE_EXAMPLES = (
    "ci/bench.py compare out --margin 2",
    "ci/bench.py compare out-4 out-8 --points 8192/1024/4 8192/1024/8",
    "ci/bench.py compare --points 8192/1024/4 --baseline a1.jsonl a2.jsonl \\",
    "    --patched b1.jsonl b2.jsonl",
)


def options(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _run_options(actions)
    _compare_options(actions)


def _points_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--points",
        metavar="ISL/OSL/C",
        nargs="+",
        default=[str(PROFILE)],
        help="input length, output length (tokens) and concurrency; or a gate profile, "
        f"for its points (default: ci/profiles/{PROFILE.name})",
    )


def _run_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(actions, "run", "make the runs, or resume", RUN_EXAMPLES)
    for arm in ARMS:
        _arm_options(parser, arm)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of records.jsonl; runs recorded there are not repeated",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=whole_number(0),
        default=6,
        help="runs per point and arm (default: %(default)s)",
    )
    _points_option(parser)
    parser.add_argument(
        "--python",
        metavar="COMMAND",
        default=shlex.quote(sys.executable),
        help="the Python that has SGLang, such as `docker exec NAME python3`; --out "
        "must be at the same path there (default: this Python)",
    )
    parser.add_argument(
        "--client-options",
        metavar="OPTIONS",
        default="",
        help="more options for sglang.bench_serving, such as --model and --tokenizer",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        default=platform.node(),
        help="name of this node, for the record; all runs of a point must be on one "
        "node. Give it if the host name changes, as in a container (default: "
        "%(default)s)",
    )
    for name, seconds, what in (
        ("run", 6 * 3600, "a run"),
        ("start", 3600, "a server's start"),
    ):
        parser.add_argument(
            f"--{name}-deadline",
            metavar="SECONDS",
            type=float,
            default=seconds,
            help=f"{what} is stopped after this time (default: %(default)s)",
        )
    parser.add_argument(
        "--dry-run", action="store_true", help="print every command without running it"
    )


def _arm_options(parser: ArgumentParser, arm: str) -> None:
    group = parser.add_argument_group(f"the {arm} arm")
    group.add_argument(f"--{arm}", metavar="URL", help="URL of its server")
    group.add_argument(
        f"--{arm}-start",
        metavar="COMMAND",
        default="",
        help="command that starts its server at that URL; started before its runs and "
        "stopped after them, so that both arms can use the same GPUs",
    )
    group.add_argument(
        f"--{arm}-source",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="paths of the SGLang and AITER that it serves, as for apply.py; their "
        "tree and series digests are recorded",
    )
    for what, help_text in (
        ("tree", "instead of the source: digest of the tree"),
        ("series", "instead of the source: digest of the series on it"),
        ("image", "digest of the image, for the record"),
    ):
        group.add_argument(
            f"--{arm}-{what}", metavar="DIGEST", default="", help=help_text
        )
    group.add_argument(
        f"--{arm}-command",
        metavar="COMMAND",
        help=f"its server's command line, whose digest is recorded (default: "
        f"--{arm}-start; give it if that changes between calls, as ports do)",
    )


def _compare_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "compare", "compare the runs of both arms", COMPARE_EXAMPLES
    )
    parser.add_argument(
        "records",
        metavar="DIR",
        nargs="*",
        type=Path,
        help="the --out of run; several if points were run on several nodes",
    )
    for arm in ARMS:
        parser.add_argument(
            f"--{arm}",
            metavar="FILE",
            nargs="+",
            type=Path,
            help=f"instead: the {arm}'s output files of sglang.bench_serving",
        )
    _points_option(parser)
    parser.add_argument(
        "--margin",
        metavar="PERCENT",
        type=float,
        default=2.0,
        help="the tolerated loss at a point (default: %(default)s)",
    )
    parser.add_argument(
        "--alpha",
        metavar="P",
        type=float,
        default=0.05,
        help="the probability of a wrong pass or fail (default: %(default)s)",
    )
