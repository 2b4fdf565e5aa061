"""Making a patch again from contents gives the same bytes."""

from __future__ import annotations

import pytest

from conftest import Pins
from overlaykit.core.errors import InputError
from overlaykit.repository.merge import MergeStore
from overlaykit.series.patches import apply_hunks
from overlaykit.series.remake import Contents, remake
from support.bases import BASES


@pytest.mark.parametrize("target", [*BASES, "aiter"])
def test_every_patch_comes_out_byte_for_byte(pins: Pins, target: str) -> None:
    carried, tree = pins.overlay[target], pins.tree(target)
    contents = {path: tree.read(path) for path in carried.series.paths}
    with MergeStore() as store:
        for patch in carried.series.patches:
            changes = {}
            for diff in patch.files:
                before = contents[diff.path]
                assert before is not None
                after = apply_hunks(before, diff.hunks)
                assert after is not None
                changes[diff.path] = Contents(carried.modes[diff.path], before, after)
                contents[diff.path] = after
            made = remake(patch.name, patch.header, changes, store)
            assert made.data == patch.data


def test_context_grows_until_it_is_unique() -> None:
    before = b"".join(b"x\n" * 9 + b"%d\n" % n + b"x\n" * 9 for n in range(3))
    lines = before.split(b"\n")
    lines[24] = b"new"
    with MergeStore() as store:
        change = Contents("100644", before, b"\n".join(lines))
        [file] = remake("p", b"", {"a.py": change}, store).files
    [hunk] = file.hunks
    assert len(hunk.old) > 7
    assert apply_hunks(before, file.hunks) == change.after


def test_a_place_that_is_never_unique_is_refused() -> None:
    before = b"x\n" * 200
    after = b"x\n" * 99 + b"new\n" + b"x\n" * 101
    with MergeStore() as store, pytest.raises(InputError, match="more than one place"):
        remake("p", b"", {"a.py": Contents("100644", before, after)}, store)


def test_a_patch_without_a_change_is_refused() -> None:
    with MergeStore() as store, pytest.raises(InputError, match=r"not change a\.py"):
        remake("p", b"", {"a.py": Contents("100644", b"x\n", b"x\n")}, store)
