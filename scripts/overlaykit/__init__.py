"""The engine of a carried patch series: trees, series, plans and transactions.

It reads upstream sources as bytes and Python scopes, and does not know what a series
is for. A room imports only rooms below it (docs/architecture.md).

Python imports this module before any other of the package, so the exception hook is
installed here. Without it, a failed import or an uncaught error would end the program
with exit code 1, which means that a check was made and does not hold.
"""

import json
import sys
from pathlib import Path
from types import TracebackType

_ENVIRONMENT, _INTERRUPTED = 5, 130
_running = False


def mark_running() -> None:
    """Leave printing the report to :mod:`overlaykit.cli` from now on."""
    global _running
    _running = True


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    code, message = _ENVIRONMENT, "internal error: this program has a bug"
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
    # Only SystemExit from within the hook sets the exit code.
    sys.exit(code)


sys.excepthook = _uncaught
