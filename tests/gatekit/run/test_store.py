"""A result is used again only if it has this stage and key and was decided."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from gatekit.report.schema import StageReport, StageState
from gatekit.run.store import Store
from overlaykit.core.errors import EnvironmentFailure, InputError

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


def result(state: StageState = StageState.PASS, key: str = KEY) -> StageReport:
    return StageReport(name="gsm8k", title="a stage", state=state, key=key)


def keep(store: Store, report: StageReport) -> Path:
    with store.working(report.name, report.key) as folder:
        store.keep(report)
    return folder / "result.json"


@pytest.mark.parametrize("state", StageState)
def test_only_decided_results_are_used(store: Store, state: StageState) -> None:
    report = result(state)
    keep(store, report)
    decided = state in (StageState.PASS, StageState.FAIL, StageState.INCONCLUSIVE)
    assert store.known("gsm8k", KEY) == (report if decided else None)
    assert store.known("gsm8k", OTHER) is None
    assert store.others("gsm8k", OTHER) == 1
    assert store.others("gsm8k", KEY) == 0


def test_result_of_another_series_is_refused_by_name(store: Store) -> None:
    theirs = keep(store, result(key=OTHER))
    ours = store.folder("gsm8k", KEY) / "result.json"
    ours.parent.mkdir()
    shutil.copy(theirs, ours)
    with pytest.raises(InputError) as caught:
        store.known("gsm8k", KEY)
    (finding,) = caught.value.findings
    assert finding.path == str(ours)
    assert KEY in str(finding.expected) and OTHER in str(finding.found)
    assert ours.read_bytes() == theirs.read_bytes()


def test_result_of_another_stage_is_refused(store: Store) -> None:
    theirs = keep(store, result())
    folder = store.folder("traces", KEY)
    folder.mkdir(parents=True)
    shutil.copy(theirs, folder)
    with pytest.raises(InputError, match="that of gsm8k"):
        store.known("traces", KEY)


@pytest.mark.parametrize("kept", [0, 1, 60, -1])
def test_partial_result_is_refused(store: Store, kept: int) -> None:
    """Results are written atomically, so a crash does not leave a partial one."""
    path = keep(store, result())
    torn = path.read_bytes()[:kept]
    path.write_bytes(torn)
    with pytest.raises(InputError, match=str(path)):
        store.known("gsm8k", KEY)
    assert path.read_bytes() == torn


def test_second_lock_is_refused(store: Store) -> None:
    with store.working("gsm8k", KEY) as folder:
        with pytest.raises(EnvironmentFailure) as caught, store.working("gsm8k", KEY):
            pytest.fail("both have the lock")
        assert caught.value.findings[0].path == str(folder)
        with store.working("gsm8k", OTHER), store.working("traces", KEY):
            pass
    with store.working("gsm8k", KEY):
        pass


def test_one_of_many_gets_the_lock(store: Store) -> None:
    inside: list[int] = []
    refused: list[int] = []
    together = threading.Barrier(8)

    def attempt(number: int) -> None:
        together.wait()
        try:
            with store.working("gsm8k", KEY):
                inside.append(number)
                done.wait()
        except EnvironmentFailure:
            refused.append(number)
            if len(refused) == 7:
                done.set()

    done = threading.Event()
    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(inside), len(refused)) == (1, 7)


def test_fresh_sets_earlier_files_aside(store: Store) -> None:
    """Earlier files may have taken hours of GPU time."""
    for number in (1, 2):
        path = keep(store, result(StageState.FAIL))
        (path.parent / "answers").mkdir()
        (path.parent / "answers" / "one").write_text(str(number))
        with store.working("gsm8k", KEY, fresh=True) as folder:
            assert [p.name for p in folder.iterdir()] == [".lock"]
        aside = folder.with_name(f"{KEY}.{number}")
        assert (aside / "answers" / "one").read_text() == str(number)
        assert (aside / "result.json").exists()
        assert store.known("gsm8k", KEY) is None
        assert store.others("gsm8k", KEY) == 0


def test_run_directory_that_is_a_file(store: Store) -> None:
    store.root.write_text("somebody's")
    with pytest.raises(EnvironmentFailure, match="Not a directory"):
        store.known("gsm8k", KEY)
    with (
        pytest.raises(EnvironmentFailure, match="cannot write"),
        store.working("gsm8k", KEY),
    ):
        pytest.fail("it was written to")
    assert store.root.read_text() == "somebody's"


def test_point_has_one_folder(store: Store) -> None:
    folder = store.folder("bench:8192/1024/4", KEY)
    assert folder.relative_to(store.root).parts == ("bench-8192-1024-4", KEY)
