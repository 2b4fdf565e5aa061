"""The command line of ``ci/trace_check.py``."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from overlaykit.core.options import whole_number

EXAMPLES = (
    "ci/trace_check.py run-TP-0-DECODE.trace.json.gz",
    "ci/trace_check.py after/ --baseline before/ --html report.html",
    "ci/trace_check.py decode.json.gz --capture capture_traces/ \\",
    "    --module Qwen3Attention --expect-layers 36 --expect-copies 2",
)


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "trace",
        metavar="TRACE",
        nargs="+",
        type=Path,
        help="profiler files, plain or gz, or a directory of them; each trace gets its "
        "own verdict, and the exit code is that of the worst one",
    )
    for name, what in (
        ("baseline", "of the tree without the series, paired by TP rank"),
        ("capture", "of the graphs' capture, or of the same step run eagerly"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="TRACE",
            nargs="+",
            default=[],
            type=Path,
            help=f"traces {what}",
        )
    parser.add_argument(
        "--baseline-capture",
        metavar="TRACE",
        nargs="+",
        default=[],
        type=Path,
        help="as --capture, for the baseline's graphs",
    )
    parser.add_argument(
        "--module",
        default="DeepseekV2AttentionMLA",
        help="class of the modules to check (default: %(default)s)",
    )
    for name, default, what in (
        ("layers", 78, "number of layers with that module (default: %(default)s)"),
        ("copies", 0, "copies in each of them (default: %(default)s)"),
        ("gemms", None, "GEMMs in each of them (default: any number, all the same)"),
    ):
        parser.add_argument(
            f"--expect-{name}",
            metavar="N",
            type=whole_number(0),
            default=default,
            help=what,
        )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write a page with figures and a plot"
    )
    parser.add_argument(
        "--svg", metavar="FILE", type=Path, help="write the timeline of one layer"
    )
