"""The function that a cluster job runs. It is pickled by value, because the node may
not be able to import this module."""

from __future__ import annotations

from collections.abc import Sequence


def run_in_job(
    setup: Sequence[Sequence[str]], keeper: str, command: Sequence[str], folder: str
) -> bytes:
    """Run the gate under a keeper, so that it ends with the job, and return its report.

    The commands in ``setup`` run first; they prepare the node.
    """
    import subprocess
    import sys

    for words in setup:
        subprocess.run(words, cwd=folder, stdout=sys.stderr, check=True)
    process = subprocess.Popen(
        [sys.executable, keeper, *command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # Not communicate(), which closes standard input: the keeper would end.
    said = process.stdout.read() if process.stdout else b""
    process.wait()
    return said
