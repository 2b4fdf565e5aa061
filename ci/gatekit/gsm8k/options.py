"""The command line of ``ci/gsm8k.py``."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from pathlib import Path

import msgspec

from gatekit.gsm8k.results import ARMS
from overlaykit.core.documents import from_json
from overlaykit.core.options import add_action, whole_number

_MOST_QUESTIONS = 1_000_000

RUN_EXAMPLES = (
    "ci/gsm8k.py run --arm baseline --url http://localhost:9000/v1 --out runs/a1",
    "ci/gsm8k.py run --arm patched --url http://localhost:9000/v1 --out runs/b1 \\",
    "    --source /sgl-workspace/sglang /sgl-workspace/aiter --image sha256:0d5b6a7",
    "ci/gsm8k.py run --arm baseline --url http://localhost:9000/v1 --out runs/a1 \\",
    "    --questions gsm8k/test.jsonl --chat-template-kwarg enable_thinking=false",
    "",
    "To resume an incomplete run, give the same command again.",
)
COMPARE_EXAMPLES = (
    "ci/gsm8k.py compare --baseline runs/a1 --patched runs/b1",
    "ci/gsm8k.py compare --baseline runs/a1 runs/a2 --patched runs/b1 runs/b2 --json",
    "ci/gsm8k.py compare --baseline ~/.sgl_eval/sgl_eval_gsm8k_1 --patched runs/b1 \\",
    "    --margin 1.0",
)
POWER_EXAMPLES = (
    "ci/gsm8k.py power",
    "ci/gsm8k.py power --questions 1319 2638 --discordance 3.2 --margin 1.5",
    "ci/gsm8k.py power --calibrate --markdown statistics.md --json > statistics.json",
)


def options(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _run_options(actions)
    _compare_options(actions)
    _power_options(actions)


def _run_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "run", "ask an endpoint the questions, or resume a run", RUN_EXAMPLES
    )
    parser.add_argument(
        "--arm", choices=ARMS, required=True, help="the arm that the endpoint serves"
    )
    parser.add_argument(
        "--url",
        required=True,
        help="URL of the OpenAI-compatible API, with its path, usually /v1",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for the answers, one per run",
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        nargs="+",
        default=["test"],
        help="GSM8K's own files; `test` and `train` download the official ones "
        "(default: test)",
    )
    parser.add_argument(
        "--first",
        metavar="N",
        type=whole_number(),
        help="ask only the first N questions",
    )
    parser.add_argument(
        "--prompt",
        metavar="FILE",
        type=Path,
        help="prompt file in sgl-eval's format (YAML, `user: ... {problem}`); default: "
        "sgl-eval's own prompt for GSM8K",
    )
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument("--api-key", default="EMPTY", help="default: %(default)s")
    for name, default, what in (
        ("max-tokens", 2048, "token limit of an answer, sent with every request"),
        ("threads", 64, "parallel requests"),
        ("timeout", 600, "seconds a request waits without receiving data"),
        ("tries", 3, "requests per question before it is left unanswered"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="N",
            type=whole_number(),
            default=default,
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument(
        "--chat-template-kwarg",
        metavar="K=V",
        action="append",
        default=[],
        type=_pair,
        help="passed to the server's chat template; V is JSON, else text",
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="paths of the SGLang and AITER that are served, as for apply.py; their "
        "tree and series digests are recorded",
    )
    for what, help_text in (
        ("tree", "instead of --source: digest of the tree"),
        (
            "series",
            "instead of --source: digest of the series in effect, or `none`; must "
            "differ between the arms",
        ),
        ("image", "digest of the image, for the record"),
    ):
        parser.add_argument(f"--{what}", metavar="DIGEST", default="", help=help_text)
    parser.add_argument(
        "--server-command",
        metavar="COMMAND",
        default="",
        help="the server's command line, without parts that change at every start, "
        "such as a port; its digest is recorded and must be equal in all runs of an "
        "arm",
    )


def _compare_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "compare", "compare the runs of two arms", COMPARE_EXAMPLES
    )
    for arm in ARMS:
        parser.add_argument(
            f"--{arm}",
            metavar="DIR",
            nargs="+",
            type=Path,
            required=True,
            help=f"runs of the {arm} arm, from this verb or plain sgl-eval; the same "
            "number for both arms",
        )
    parser.add_argument(
        "--margin",
        metavar="POINTS",
        type=_points,
        help="the smallest drop that matters, in percentage points (default: 1.5, or "
        "1.0 with 3,900 questions or more). Choose it before the runs, not after",
    )


def _power_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "power", "what a run of N questions can show", POWER_EXAMPLES
    )
    many = whole_number(most=_MOST_QUESTIONS)
    for name, kind, default, what in (
        ("questions", many, [1200, 1319, 3957], "numbers of questions"),
        ("discordance", _points, [0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
         "percentages of questions on which the arms differ"),
        ("margin", _points, [0.015, 0.01], "smallest drops that matter, in points"),
    ):  # fmt: skip
        parser.add_argument(
            f"--{name}", metavar="N", nargs="+", type=kind, default=default, help=what
        )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="also simulate the error rates, and apply the rule to published scores "
        "(takes a minute)",
    )
    parser.add_argument(
        "--markdown", metavar="FILE", type=Path, help="write the evidence page"
    )


def _points(text: str) -> float:
    """Percentage points as a proportion."""
    try:
        points = float(text)
    except ValueError:
        points = 0
    if not 0 < points < 100:
        raise ArgumentTypeError(f"expected points above 0 and below 100, not {text!r}")
    return points / 100


def _pair(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    try:
        return name, from_json(value, object)
    except msgspec.DecodeError:
        return name, value
