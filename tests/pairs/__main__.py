"""Pair every AITER with the series and write the page: ``python tests/pairs``.

Does what a user does, verb by verb, in a copy of this overlay: lay the AITER out and
apply; if the patch is needed, rebase and adopt it for this commit; then prove the bytes
of the pair with each base of SGLang. A pair takes half a minute to a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from conftest import copy_overlay, give_packages  # noqa: E402
from overlaykit.core.files import write_whole  # noqa: E402
from overlaykit.core.gitnames import is_commit  # noqa: E402
from overlaykit.repository.clones import text  # noqa: E402
from overlaykit.repository.refs import commit_of  # noqa: E402

PAGE = ROOT / "docs" / "evidence" / "aiter.md"
BASES = ("sglang", "sglang-0.5.23")


@dataclass(frozen=True)
class Version:
    """An AITER commit, and who names it."""

    commit: str
    date: str
    names: tuple[str, ...]


@dataclass
class Pair:
    """What the verbs said of an AITER, and of each base of SGLang with it."""

    version: Version
    word: str
    how: str
    proofs: dict[str, str] = field(default_factory=dict)


class Copy:
    """A copy of this overlay with its own build folder."""

    def __init__(self, root: Path) -> None:
        self.root = give_packages(copy_overlay(root))

    def verb(self, name: str, *arguments: str, ok: Sequence[int] = (0,)) -> Any:
        """A verb's JSON. Ends the program if it exits otherwise than expected."""
        command = [sys.executable, f"scripts/{name}.py", "--json", *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, check=False)
        if done.returncode not in ok:
            sys.exit(f"{' '.join(command)}: {done.stdout.decode()}")
        return json.loads(done.stdout)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, required=True, help="a clone of AITER")
    parser.add_argument(
        "--named-by",
        metavar="REF=TEXT",
        action="append",
        default=[],
        help="who names a ref, such as an image recipe; may be repeated",
    )
    parser.add_argument("refs", metavar="REF", nargs="*", help="other tags or commits")
    a = parser.parse_args()
    named = dict(one.split("=", 1) for one in a.named_by)
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder) / "overlay")
        copy.verb("fetch")
        copy.verb("apply", *(f"build/{base}" for base in BASES))
        pairs = []
        for version in _versions(a.clone, [*a.refs, *named], named):
            pairs.append(_pair(copy, a.clone, version))
            print(pairs[-1], file=sys.stderr)
    write_whole(PAGE, _page(pairs))


def _versions(clone: Path, refs: Iterable[str], named: dict[str, str]) -> list[Version]:
    """The commits of the refs, oldest first."""
    names: dict[str, list[str]] = {}
    for ref in dict.fromkeys(refs):
        commit = commit_of(clone, ref)
        if commit is None:
            sys.exit(f"{clone} has no commit {ref}")
        about = ref[:12] if is_commit(ref) else ref
        if ref in named:
            about += f" ({named[ref]})"
        names.setdefault(commit, []).append(about)
    dates = {one: text(clone, "log", "-1", "--format=%ci", one) for one in names}
    return [
        Version(commit, dates[commit][:10], tuple(names[commit]))
        for commit in sorted(names, key=lambda one: dates[one])
    ]


def _pair(copy: Copy, clone: Path, version: Version) -> Pair:
    where = ("--target", "aiter", "--clone", str(clone))
    tree = f"build/aiter-{version.commit[:12]}"
    copy.verb("fetch", *where, "--commit", version.commit)
    found = copy.verb("apply", tree, ok=(0, 3))
    [result] = found["results"]
    how = "apply"
    word = ", ".join(sorted({hunk["state"] for hunk in result.get("hunks", ())}))
    if result["outcome"].startswith("refused"):
        how = "rebase, adopt, apply"
        copy.verb("rebase", *where, "--onto", version.commit)
        copy.verb("rebase", "--adopt")
        [result] = copy.verb("apply", tree)["results"]
        assert result["outcome"] == "applied", result
    if result["outcome"] == "upstreamed":
        word, how = "upstreamed", "-"
    pair = Pair(version, word, how)
    for base in BASES:
        done = copy.verb("verify", f"build/{base}", tree, "--numeric", ok=(0, 1))
        for one in done["results"]:
            pair.proofs[base] = f"{one['right']} of {one['cases']}"
    return pair


def _page(pairs: Sequence[Pair]) -> str:
    heads = " | ".join(f"`verify --numeric` of {base}" for base in BASES)
    rows = [
        f"| {', '.join(pair.version.names)} | {pair.version.date} | {pair.word} "
        f"| {pair.how} | {' | '.join(pair.proofs[base] for base in BASES)} |"
        for pair in pairs
    ]
    return "\n".join(
        (
            "# The series with every AITER",
            "",
            "Made by `python tests/pairs --clone AITER`, with a clone of ROCm/aiter's "
            "history; the refs are those of the first column, and a date in brackets "
            "is the day on which SGLang's image recipe began to name the commit. "
            "Nothing of AITER is committed here. Run on a CPU, in Triton's "
            "interpreter, by the verbs themselves. Not run on an MI355X.",
            "",
            "The third column is what `apply` says of the unpatched tree: whether the "
            "patch is needed, and how its hunks land; `upstreamed`: AITER has the "
            "change, and nothing is applied. `apply` alone is enough "
            "where the file is that of a base: the pinned one, or one of a row above. "
            "The last columns count the cases in which "
            "every scale is right where a GEMM reads it, with both routes and every "
            "producer.",
            "",
            f"| AITER | date | the patch | how | {heads} |",
            f"|---|---|---|---|{'---|' * len(BASES)}",
            *rows,
            "",
        )
    )


if __name__ == "__main__":
    main()
