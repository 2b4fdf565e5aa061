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
    "The same command again goes on with what is unanswered.",
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
        actions, "run", "ask an endpoint, or go on asking it", RUN_EXAMPLES
    )
    parser.add_argument("--arm", choices=ARMS, required=True, help="what it serves")
    parser.add_argument(
        "--url",
        required=True,
        help="OpenAI-compatible, with its /v1 or whatever it has",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where the answers are kept; one folder a run",
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        nargs="+",
        default=["test"],
        help="GSM8K's own files, or `test` and `train` to have them downloaded "
        "(default: test)",
    )
    parser.add_argument(
        "--first",
        metavar="N",
        type=whole_number(),
        help="ask the first N questions only",
    )
    parser.add_argument(
        "--prompt",
        metavar="FILE",
        type=Path,
        help="a prompt in the form of sgl-eval's own (YAML, `user: ... {problem}`); "
        "default: that of its own which GSM8K has",
    )
    parser.add_argument("--model", help="default: the first that the server names")
    parser.add_argument("--api-key", default="EMPTY", help="default: %(default)s")
    for name, default, what in (
        ("max-tokens", 2048, "the limit of an answer, sent with every request"),
        ("threads", 64, "requests at a time"),
        ("timeout", 600, "seconds that a request may hear nothing"),
        ("tries", 3, "requests for a question before it is left open"),
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
        help="the SGLang, and AITER, that is served: what apply.py takes. Tree and "
        "series are read off them, for the record",
    )
    for what, help_text in (
        ("tree", "or the digest of that tree"),
        ("series", "and of the series in effect, or `none`; the arms' must differ"),
        ("image", "the image's, for the record"),
    ):
        parser.add_argument(f"--{what}", metavar="DIGEST", default="", help=help_text)
    parser.add_argument(
        "--server-command",
        metavar="COMMAND",
        default="",
        help="what serves, without what changes at every start, as a port: the record "
        "keeps its digest, and all runs of an arm must have the same",
    )


def _compare_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "compare", "decide between two arms' runs", COMPARE_EXAMPLES
    )
    for arm in ARMS:
        parser.add_argument(
            f"--{arm}",
            metavar="DIR",
            nargs="+",
            type=Path,
            required=True,
            help=f"runs of the {arm}, ours or plain sgl-eval's; as many in both arms",
        )
    parser.add_argument(
        "--margin",
        metavar="POINTS",
        type=_points,
        help="the drop that would matter, in percentage points (default: 1.5, from "
        "3,900 questions on 1.0). Choose it before the runs, not after",
    )


def _power_options(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = add_action(
        actions, "power", "what can a number of questions tell?", POWER_EXAMPLES
    )
    many = whole_number(most=_MOST_QUESTIONS)
    for name, kind, default, what in (
        ("questions", many, [1200, 1319, 3957], "how many"),
        ("discordance", _points, [0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
         "percentages on which the arms differ"),
        ("margin", _points, [0.015, 0.01], "drops that would matter, in points"),
    ):  # fmt: skip
        parser.add_argument(
            f"--{name}", metavar="N", nargs="+", type=kind, default=default, help=what
        )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="also draw how often it errs, and decide published counts (a minute)",
    )
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write a page")


def _points(text: str) -> float:
    """Percentage points, as a proportion."""
    try:
        points = float(text)
    except ValueError:
        points = 0
    if not 0 < points < 100:
        raise ArgumentTypeError(f"a number of points above 0, below 100, not {text!r}")
    return points / 100


def _pair(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"NAME=VALUE, not {text!r}")
    try:
        return name, from_json(value, object)
    except msgspec.DecodeError:
        return name, value
