"""Our object ids against git's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlaykit.core import git
from overlaykit.core.objects import Entry, blob_id, tree_id

_NAME = st.text("ab.-_é0", min_size=1, max_size=4).filter(lambda n: n.strip("."))
_PATH = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_FILES = st.dictionaries(_PATH, st.binary(max_size=40), max_size=8)


def _no_file_is_a_folder(files: dict[str, bytes]) -> bool:
    return not any(a.startswith(f"{b}/") for a in files for b in files)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    git.run(folder, "init", "-q")
    return folder


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(files=_FILES.filter(_no_file_is_a_folder))
def test_tree_id_equals_gits(store: Path, files: dict[str, bytes]) -> None:
    entries = {p: Entry("100755" if d[:1] > b"z" else "100644", blob_id(d))
               for p, d in files.items()}  # fmt: skip
    for data in files.values():
        oid = git.run(store, "hash-object", "-w", "--stdin", stdin=data).stdout
        assert oid.decode().strip() == blob_id(data)
    rows = "".join(f"{e.mode} {e.blob}\t{p}\0" for p, e in entries.items())
    git.run(store, "read-tree", "--empty")
    git.run(store, "update-index", "-z", "--index-info", stdin=rows.encode())
    assert git.text(store, "write-tree") == tree_id(entries)
