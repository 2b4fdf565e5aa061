"""Compiled files that hide a source change from Python.

Python recompiles a changed source unless its ``.pyc`` is never checked against it (PEP
552, unchecked hash; some images are built with ``compileall --invalidation-mode
unchecked-hash``). A series applied beside such a file is on disk but does not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from overlaykit.core.errors import Finding
from overlaykit.core.wording import quoted
from overlaykit.trees.tree import DirectoryTree

_HASH_BASED, _CHECK_SOURCE = 0b01, 0b10


def hidden_by_bytecode(
    tree: DirectoryTree, paths: Iterable[str]
) -> tuple[Finding, ...]:
    """A finding for every unchecked ``.pyc`` of the files at ``paths``."""
    found = []
    for path in paths:
        if not tree.holds(path):
            continue
        cache = tree.locate(path).parent / "__pycache__"
        for compiled in sorted(cache.glob(f"{PurePosixPath(path).stem}.*.pyc")):
            with compiled.open("rb") as file:
                flags = int.from_bytes(file.read(8)[4:], "little")
            if flags & _HASH_BASED and not flags & _CHECK_SOURCE:
                found.append(
                    Finding(
                        "Python runs its .pyc file and ignores the source",
                        path=path,
                        expected="no .pyc file, or one that is checked against the "
                        "source",
                        found=f"{compiled} (PEP 552, unchecked hash)",
                        next_step=f"rm {quoted(str(compiled))}",
                    )
                )
    return tuple(found)
