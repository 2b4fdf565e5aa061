"""Every command in the documents is run, or says here why it cannot be."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from support.patience import PATIENCE_S

pytestmark = pytest.mark.slow("every command of the documentation is run")

README, OWN, GATE, UPSTREAM, TRUST, BASES = (
    ROOT / name
    for name in (
        *("README.md", "docs/carry-your-own.md", "docs/the-gate.md"),
        *("docs/upstream.md", "docs/trust.md", "docs/bases.md"),
    )
)
_PAGES = (README, UPSTREAM, TRUST, GATE, BASES)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """A command a line, without what is said of it."""
    lines = "".join(_BLOCK.findall(path.read_text())).replace("\\\n", " ").splitlines()
    shorn = (line.partition("  #")[0].strip() for line in lines)
    return [line for line in shorn if line and not line.startswith("#")]


# How a command of these pages is run, where it is not run as it stands.
# {sglang}, {aiter}: trees that the series is on; {traces}: real ones; {out}: a folder.
RUN = {
    "make apply": "make apply",
    "scripts/apply.py PATH...": "scripts/apply.py {sglang} {aiter}",
    "scripts/apply.py --dry-run PATH...": "scripts/apply.py --dry-run {sglang} {aiter}",
    "scripts/apply.py --status PATH...": "scripts/apply.py --status {sglang} {aiter}",
    "scripts/apply.py --unapply PATH...": "scripts/apply.py --unapply {sglang}",
    "scripts/apply.py --commit PATH": "scripts/apply.py --commit {sglang}",
    "scripts/verify.py PATH...": "scripts/verify.py {sglang} {aiter}",
    "scripts/verify.py SGLANG AITER --numeric": (
        "scripts/verify.py {sglang} {aiter} --numeric --jobs 2"
    ),
    "scripts/doctor.py --sglang SGLANG --aiter AITER": (
        "scripts/doctor.py --sglang {sglang} --aiter {aiter}"
    ),
    "scripts/rebase.py --onto 0.5.12.post1": "scripts/rebase.py --onto 0.5.14",
    "scripts/refresh.py PATH": "scripts/refresh.py {sglang}",
    "scripts/export.py --target sglang --quilt DIR": (
        "scripts/export.py --target sglang --quilt {out}/quilt"
    ),
    "ci/trace_check.py PATCHED --baseline BASELINE": (
        "ci/trace_check.py {traces}/series-eager-TP-0-DECODE.trace.json.gz "
        "--baseline {traces}/pristine-eager-TP-0-DECODE.trace.json.gz "
        "--expect-layers 3"
    ),
    # No such hardware: its plan.
    "ci/gate.py --profile cuda": "ci/gate.py --profile cuda --dry-run",
    "ci/gate.py --profile mi355x-glm51": "ci/gate.py --profile mi355x-glm51 --dry-run",
}

# Run as they stand.
PLAIN = (
    "scripts/drift.py",
    "scripts/fetch.py --release 0.5.13",
    "ci/gate.py --profile cpu --dry-run",
    "ci/gate.py --profile mi355x-glm51 --dry-run",
    "ci/cluster.py --profile cpu --out runs/cluster --dry-run",
)

_COMMITS = "tests/verbs/test_commit_bases.py"
# Not run here; other tests do, by the same verb.
ELSEWHERE = {
    "scripts/fetch.py": "make apply",
    "scripts/fetch.py --clone ~/src/sglang": _COMMITS,
    "scripts/fetch.py --commit ID --clone PATH": _COMMITS,
    "scripts/lock.py --clone ~/src/sglang": _COMMITS,
    "scripts/apply.py --status ~/src/sglang": _COMMITS,
    "scripts/apply.py build/sglang-main": _COMMITS,
    "scripts/rebase.py --onto origin/main --clone ~/src/sglang": _COMMITS,
    "scripts/rebase.py --continue": "tests/verbs/test_rebase.py",
    "scripts/rebase.py --adopt --as sglang-main": _COMMITS,
    "scripts/rebase.py --adopt --replace sglang-main": _COMMITS,
    "scripts/rebase.py --drop sglang-0.5.12.post1": _COMMITS,
    "scripts/verify.py build/sglang-main build/aiter --numeric": (
        "docs/evidence/main.md"
    ),
    "scripts/export.py --target sglang-main --branch ours --clone ~/src/sglang": (
        _COMMITS
    ),
    "scripts/fetch.py --target aiter --commit ID --clone ~/src/aiter": _COMMITS,
    "scripts/apply.py build/sglang build/aiter-ID": _COMMITS,
    "scripts/verify.py build/sglang build/aiter-ID --numeric": "tests/pairs",
    "scripts/doctor.py --sglang build/sglang --aiter build/aiter-ID": (
        "tests/verbs/test_doctor.py"
    ),
    "scripts/rebase.py --target aiter --onto ID --clone ~/src/aiter": _COMMITS,
    "scripts/rebase.py --adopt": _COMMITS,
    "scripts/nightly.py --clone ~/src/sglang": "tests/verbs/test_nightly.py",
    "scripts/nightly.py --clone ~/src/sglang --aiter-clone ~/src/aiter --publish "
    "--dry-run": "tests/verbs/test_nightly.py",
    "make test": "this is it",
    "pip install --group gate --group kernels": "make test did",
    "scripts/drift.py --clone PATH --range v0.5.12..origin/main": "tests/upstream",
    "scripts/drift.py --clone PATH --range A..B --first-bad S3": "tests/upstream",
    "scripts/verify.py SGLANG --aiter AITER --numeric --open all --json > audit.json": (
        "tests/xscale/test_audit.py"
    ),
    "scripts/export.py --audit audit.json --pr-body guard.md": (
        "tests/xscale/test_audit.py"
    ),
    "ci/microbench.py --sglang PATH --aiter PATH --out DIR": (
        "tests/ci/test_microbench.py"
    ),
    "ci/gsm8k.py run ...": "tests/gatekit/gsm8k",
    "ci/gsm8k.py compare ...": "tests/gatekit/gsm8k",
    "ci/gsm8k.py power ...": "tests/gatekit/gsm8k",
    "ci/bench.py run ...": "tests/gatekit/serving",
    "ci/bench.py compare DIR": "tests/gatekit/serving",
    "ci/gate.py --profile cpu": "tests/gatekit/run",
    "ci/gate.py --profile cpu --out runs/today": "tests/gatekit/run",
    "ci/gate.py --profile cpu --out runs/today --resume": "tests/gatekit/run",
    "ci/gate.py --profile cpu --out runs/today --only verify": "tests/gatekit/run",
    "ci/gate.py --profile cpu --out runs/today --from numeric": "tests/gatekit/run",
    "ci/gate.py --profile cpu --out runs/today --only report": "tests/gatekit/run",
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, with the packages that this machine has fetched already."""
    return _clone(tmp_path_factory.mktemp("docs") / "clone")


def _clone(to: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(ROOT), str(to)], check=True)
    (to / "build").mkdir()
    cache = ROOT / "build" / "cache"
    if cache.is_dir():
        shutil.copytree(cache, to / "build" / "cache", copy_function=os.symlink)
    return to


def sh(script: str, where: Path) -> subprocess.CompletedProcess[str]:
    """As a person's shell runs it, with the environment of these tests active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=where,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_every_command_is_accounted_for() -> None:
    said = {command for page in _PAGES for command in commands(page)}
    known = {*RUN, *PLAIN, *ELSEWHERE}
    assert said - known == set()
    assert {name for name in known - said if name not in commands(OWN)} == set()


def test_the_readme_s_commands(sandbox: Path) -> None:
    """In its order, on one clone, as a reader would who follows it."""
    known = {
        "sglang": "build/sglang",
        "aiter": "build/aiter",
        "traces": str(ROOT / "tests" / "data" / "traces" / "h200-m64"),
        "out": "out",
    }
    for said in dict.fromkeys(c for page in _PAGES for c in commands(page)):
        line = RUN.get(said, said if said in PLAIN else None)
        if line is None:
            continue
        done = sh(line.format(**known), sandbox)
        # Without an MI355X no site is live, and doctor says so.
        expected = 1 if "doctor" in line else 0
        if importlib.util.find_spec("torch") is None and done.returncode == 5:
            assert "pip install --group" in done.stderr, f"{line}\n{done.stderr}"
            continue
        assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"


def test_a_series_of_one_s_own(tmp_path: Path) -> None:
    """The whole page is one script, but for where the clone comes from."""
    script = "".join(_BLOCK.findall(OWN.read_text()))
    source = _clone(tmp_path / "source")
    linked = f"cd my-overlay\nmkdir build && cp -rs {source}/build/cache build/cache\n"
    script = script.replace("REPOSITORY", shlex.quote(str(source)))
    script = script.replace("cd my-overlay\n", linked)
    done = sh(script, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "my-overlay/out/0001-kinder-words.patch").is_file()
    assert "kinder-words" in (tmp_path / "my-overlay/overlay.toml").read_text()


def _links() -> Iterator[tuple[Path, str]]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith(("http://", "https://")):
                yield page, target


def test_links_lead_somewhere() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page, target in _links()
        if not (page.parent / target).exists()
    ]
    assert missing == []
