"""The engine of a carried patch series: trees, series, plans, landings, transactions.

It knows upstream sources as bytes and Python scopes, and nothing of what any one
series is for. Layers look down only: ``errors`` and ``objects`` at the bottom, then
``git`` and ``trees``, then ``patches``, ``series`` and ``scopes``, then ``manifest``
and ``lock``, then ``plan`` (with ``merge``), then ``transaction``; the verbs on top.

Whatever a verb imports first, this comes before it. So this is where a program is kept
from ending with Python's own 1, which would say that a check was made and does not
hold: by an import that fails, or by anything else that no verb catches.
"""

import json
import sys
from pathlib import Path
from types import TracebackType

_ENVIRONMENT, _INTERRUPTED = 5, 130
_running = False


def mark_running() -> None:
    """From here on the one report is :mod:`overlaykit.cli`'s to print."""
    global _running
    _running = True


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    code, message = _ENVIRONMENT, "a defect of this program: it ended without an answer"
    if issubclass(kind, KeyboardInterrupt):
        code, message = _INTERRUPTED, "interrupted"
    elif isinstance(error, ModuleNotFoundError) and error.name == "msgspec":
        needed = Path(__file__).parents[2] / "requirements.txt"
        message = (
            f"msgspec is not installed for {sys.executable}: run {sys.executable} -m "
            f"pip install -r {needed}"
        )
    else:
        sys.__excepthook__(kind, error, trace)
    if sys.stderr is not None:
        print(message, file=sys.stderr)
    if "--json" in sys.argv[1:] and sys.stdout is not None and not _running:
        verb = Path(sys.argv[0]).stem
        report = {"verb": verb, "exit_code": code, "message": message}
        empty = {"dry_run": False, "results": [], "findings": []}
        print(json.dumps({**report, **empty}, indent=2), flush=True)
    # Of all that a hook can do, this alone decides the exit code.
    sys.exit(code)


sys.excepthook = _uncaught
