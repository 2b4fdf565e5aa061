"""Edits overlay.toml as text: one target's table, and nothing else in the file.

A person wrote the file, so its comments and its order stay. The result is parsed and
compared with what was there: a file that is written in another way is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from overlaykit.core.errors import Finding, InputError
from overlaykit.series.manifest import MANIFEST, Target, parse_manifest

_HEADER = re.compile(r"\s*\[")
_OVERLAY = re.compile(r"\s*overlay\s*=")


def with_table(manifest: bytes, name: str, table: str, target: Target) -> bytes:
    """The manifest with ``table``, which describes ``target``, in the place of the
    target's own. Raises InputError if it cannot be edited."""
    lines = manifest.decode().splitlines(keepends=True)
    first, last = _place(lines, name)
    lines[first:last] = [table]
    was = parse_manifest(manifest).targets
    return _checked("".join(lines), {n: target if n == name else t
                                     for n, t in was.items()})  # fmt: skip


def without_table(manifest: bytes, name: str) -> tuple[bytes, str | None]:
    """The manifest without a target, and the target that keeps its new files from now
    on: the first that shared them, if there is one."""
    text, targets = manifest.decode(), dict(parse_manifest(manifest).targets)
    lines = text.splitlines(keepends=True)
    sharing = [other for other, target in targets.items() if target.overlay == name]
    heir = sharing[0] if sharing else None
    for other in sharing:
        home = None if other == heir else heir
        targets[other] = msgspec.structs.replace(targets[other], overlay=home)
        first, last = _place(lines, other)
        lines[first:last] = [
            line if not _OVERLAY.match(line) else f'overlay = "{home}"\n'
            for line in lines[first:last]
            if home is not None or not _OVERLAY.match(line)
        ]
    first, last = _place(lines, name)
    # The blank line before a table goes with it.
    while first and not lines[first - 1].strip():
        first -= 1
    del lines[first:last]
    del targets[name]
    return _checked("".join(lines), targets), heir


def _place(lines: list[str], name: str) -> tuple[int, int]:
    """The lines of a target's table: from its header to its last key."""
    header = re.compile(rf"\s*\[targets\.(\"{re.escape(name)}\"|{re.escape(name)})\]\s*"
                        r"(#.*)?\n?")  # fmt: skip
    starts = [number for number, line in enumerate(lines) if header.fullmatch(line)]
    if len(starts) != 1:
        raise _by_hand(f'it has {len(starts)} lines [targets."{name}"]')
    after = (n for n in range(starts[0] + 1, len(lines)) if _HEADER.match(lines[n]))
    last = next(after, len(lines))
    # Comments above the next table belong to that.
    while _is_comment(lines[last - 1]):
        last -= 1
    return starts[0], last


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _checked(text: str, targets: Mapping[str, Target]) -> bytes:
    """The text's bytes, if it has exactly these targets."""
    try:
        found = parse_manifest(text.encode()).targets
    except (msgspec.DecodeError, InputError) as error:
        raise _by_hand(str(error)) from error
    if different := list(_different(found, targets)):
        raise _by_hand(f"the edit would change {', '.join(different)}")
    return text.encode()


def _different(
    found: Mapping[str, Target], wanted: Mapping[str, Target]
) -> Iterator[str]:
    for name in dict.fromkeys((*found, *wanted)):
        if found.get(name) != wanted.get(name):
            yield name


def _by_hand(why: str) -> InputError:
    step = "edit the file by hand, then run scripts/lock.py"
    finding = Finding("cannot be edited", path=MANIFEST, found=why, next_step=step)
    return InputError(f"{MANIFEST} cannot be edited: {why}", (finding,))
