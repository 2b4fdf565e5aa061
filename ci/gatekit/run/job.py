"""What a job runs. Pickled by value, so it stands alone: a node need not be able to
import it."""

from __future__ import annotations

from collections.abc import Sequence


def in_a_job(
    setup: Sequence[Sequence[str]], keeper: str, command: Sequence[str], folder: str
) -> bytes:
    """The gate's report. It ends when the job does, however that ends.

    ``setup`` comes first: what has to be on the node itself.
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
    # Not communicate(): that closes standard input, by which the keeper would end.
    said = process.stdout.read() if process.stdout else b""
    process.wait()
    return said
