"""The options of ``ci/bench.py``."""

from __future__ import annotations

from argparse import (
    ArgumentParser,
    _SubParsersAction,
)
from pathlib import Path

from overlaykit.cli import add_action
from serving.command import ARMS
from serving.points import TEN

RUN_EXAMPLES = (
    "ci/bench.py run --baseline http://a:30000 --candidate http://b:30000 --out out \\",
    "    --dry-run",
    "ci/bench.py run --baseline http://localhost:9000 --baseline-start ./serve-a.sh \\",
    "    --candidate http://localhost:9000 --candidate-start ./serve-b.sh --out out",
)
COMPARE_EXAMPLES = (
    "ci/bench.py compare out --margin 2",
    "ci/bench.py compare --points 8192/1024/4 --baseline a1.jsonl a2.jsonl \\",
    "    --candidate b1.jsonl b2.jsonl",
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
        default=[str(point) for point in TEN],
        help="input and output length in tokens and concurrency (default: 8192 and "
        "1024 in, 1024 out, concurrencies 4 8 16 32 64)",
    )


def _run_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "run", "make the runs, or those still to make", RUN_EXAMPLES
    )
    for arm in ARMS:
        parser.add_argument(f"--{arm}", metavar="URL", help=f"where the {arm} serves")
        parser.add_argument(
            f"--{arm}-start",
            metavar="COMMAND",
            help=f"serves the {arm} at that URL; started before its runs and ended "
            "after them, so that both arms can use the same GPUs",
        )
        for what in ("tree", "series", "image"):
            parser.add_argument(
                f"--{arm}-{what}",
                metavar="DIGEST",
                default="",
                help=f"the {arm}'s {what}, for the record",
            )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where records.jsonl goes; runs recorded there are not made again",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=int,
        default=6,
        help="runs of every point on every arm (default: %(default)s)",
    )
    _points_option(parser)
    parser.add_argument(
        "--python", metavar="PYTHON", help="the one that has SGLang (default: this one)"
    )
    parser.add_argument(
        "--client-options",
        metavar="OPTIONS",
        default="",
        help="more options for sglang.bench_serving, as --model and --tokenizer",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print every command, run none"
    )


def _compare_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "compare", "decide on the runs of both arms", COMPARE_EXAMPLES
    )
    parser.add_argument(
        "records",
        metavar="DIR",
        nargs="?",
        type=Path,
        help="the --out of run, with both arms",
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
        help="the loss that is put up with at a point (default: %(default)s)",
    )
    parser.add_argument(
        "--alpha",
        metavar="P",
        type=float,
        default=0.05,
        help="the chance of a wrong pass or fail (default: %(default)s)",
    )
