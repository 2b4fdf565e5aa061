"""A rebase on disk: the request and the resolutions of conflicts.

Both are in one folder, ``build/rebase/NAME``, together with computed files for people
to read and edit. A transaction writes the folder, as it writes a patched tree: a kill
at any moment leaves the state before or after. Of the computed files, only the one
that a maintainer edits is read back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from overlaykit.applying.transaction import hold
from overlaykit.core.access import make_folders
from overlaykit.core.documents import from_json, to_json_line
from overlaykit.core.effects import record_effect
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.gitnames import check_commit
from overlaykit.core.versions import order
from overlaykit.planning.plan import FileChange
from overlaykit.rebase.conflicts import Conflict, check_resolution
from overlaykit.series.manifest import check_target_name
from overlaykit.trees.locking import FOLDER, signals_blocked
from overlaykit.trees.tree import DirectoryTree

_REQUEST = "request.json"
_ABOUT = "conflict/about.json"
_LEFT_OUT = ".left-out"
_GONE = ".aborted-"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request. ``commit`` is null for a released version; ``clone`` names the clone
    that the commit was read from."""

    name: str
    onto: str
    target: str
    start: str
    regenerate: bool
    clone: str | None = None
    commit: str | None = None


class _About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conflict that the folder shows, and the file to edit."""

    id: str
    merged: str | None


@dataclass(frozen=True)
class Work:
    """One rebase's folder."""

    folder: Path
    request: Request

    def resolutions(self) -> dict[str, bytes | None]:
        """The maintainer's contents, by conflict id; None leaves the hunk out."""
        found: dict[str, bytes | None] = {}
        for place in sorted((self.folder / "resolutions").glob("*")):
            if place.suffix == _LEFT_OUT:
                found[place.stem] = None
            else:
                found[place.name] = place.read_bytes()
        return found

    def edited(self, conflict: Conflict) -> tuple[str, bytes] | None:
        """The name and contents of the merged file, if it belongs to this conflict."""
        try:
            about = from_json((self.folder / _ABOUT).read_bytes(), _About)
            if about.id != conflict.id or about.merged is None:
                return None
            # The JSON file may contain any name: read only below this folder.
            data = DirectoryTree(self.folder).read(about.merged)
            return None if data is None else (str(self.folder / about.merged), data)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def resolved(
        self,
        conflict: Conflict,
        resolutions: Mapping[str, bytes | None],
        skip: bool,
    ) -> dict[str, bytes | None]:
        """The resolutions with one for this conflict: its edited file, or with ``skip``
        None. Unchanged if nothing was edited.

        Raises CannotApply if the edited file is not a valid resolution.
        """
        if skip:
            return {**resolutions, conflict.id: None}
        if (edited := self.edited(conflict)) is None:
            return dict(resolutions)
        name, data = edited
        check_resolution(conflict, data, name)
        left_out = data == conflict.upstream
        return {**resolutions, conflict.id: None if left_out else data}

    def finding(self, conflict: Conflict) -> Finding:
        """The conflict for a report, with the next step."""
        plan = conflict.plan
        name = merged_name(conflict)
        step = (
            "scripts/rebase.py --skip leaves the hunk out, --skip-patch its whole "
            "patch; --abort ends the rebase"
        )
        if name is not None:
            step = f"edit {self.folder / name}, then run --continue; {step}"
        return Finding(
            f"{plan.state.value}: the hunk cannot be carried over",
            path=conflict.path or plan.path,
            line=plan.line,
            patch=plan.patch,
            hunk=plan.number,
            scope=plan.scope,
            site=" ".join(plan.sites) or None,
            expected="the hunk's change, in its place",
            found=plan.detail.partition("\n")[0].rstrip(":"),
            next_step=step,
        )

    def write(
        self,
        resolutions: Mapping[str, bytes | None],
        conflict: Conflict | None,
        results: Mapping[str, bytes],
    ) -> None:
        """Write exactly these contents into the folder.

        If the folder already shows this conflict, its merged file stays as edited.
        """
        wanted = {_REQUEST: to_json_line(self.request), **results}
        for name, data in resolutions.items():
            suffix = _LEFT_OUT if data is None else ""
            wanted[f"resolutions/{name}{suffix}"] = data or b""
        if conflict is not None:
            views = conflict_files(conflict)
            if (kept := self.edited(conflict)) is not None:
                views[merged_name(conflict) or ""] = kept[1]
            wanted |= views
        make_folders(self.folder)
        tree = DirectoryTree(self.folder)
        with hold(tree, "the rebase was written") as transaction:
            there = {
                path: tree.read(path)
                for path in tree.paths()
                if not path.startswith(f"{FOLDER}/")
            }
            changes = [
                FileChange(path, "100644", there.get(path), wanted.get(path))
                for path in sorted({*there, *wanted}, key=lambda p: (p != _REQUEST, p))
                if there.get(path) != wanted.get(path)
            ]
            if changes:
                transaction.stage(changes)
                transaction.swap()
                transaction.finish()

    def remove(self) -> None:
        """Remove the folder, and its parent if that is empty."""
        gone = self.folder.with_name(f"{_GONE}{self.folder.name}")
        shutil.rmtree(gone, ignore_errors=True)
        with signals_blocked():
            os.replace(self.folder, gone)
            record_effect(str(self.folder), "the rebase was ended")
        _sweep(self.folder.parent)


def conflict_files(conflict: Conflict) -> dict[str, bytes]:
    """The versions of a conflict, by name in the folder."""
    suffix = PurePosixPath(conflict.path or conflict.plan.path).suffix
    views = {"base": conflict.base, "ours": conflict.ours}
    if conflict.upstream is not None:
        views["upstream"] = conflict.upstream
    files = {f"conflict/{name}{suffix}": data for name, data in views.items()}
    merged = merged_name(conflict)
    if merged is not None and conflict.merged is not None:
        files[merged] = conflict.merged
    files[_ABOUT] = to_json_line(_About(conflict.id, merged))
    return files


def merged_name(conflict: Conflict) -> str | None:
    """The file in the folder that a maintainer edits; None if there is none."""
    if conflict.merged is None:
        return None
    suffix = PurePosixPath(conflict.path or conflict.plan.path).suffix
    return f"conflict/merged{suffix}"


def rebases_folder(root: Path) -> Path:
    """The folder of an overlay's active rebases."""
    return root / "build" / "rebase"


def active_rebases(root: Path) -> Iterator[Work]:
    """The rebases that are neither adopted nor aborted."""
    parent = rebases_folder(root)
    _sweep(parent)
    for folder in sorted(parent.glob("*")):
        if not folder.is_dir():
            continue
        if (folder / FOLDER).exists():
            with hold(DirectoryTree(folder)):
                pass
        try:
            data = (folder / _REQUEST).read_bytes()
        except FileNotFoundError:
            # The rebase was killed before it wrote its request.
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            request = from_json(data, Request)
            _check(folder, request)
            yield Work(folder, request)
        except (msgspec.DecodeError, UnicodeDecodeError, InputError) as error:
            step = f"remove {folder}, or restore the file"
            finding = Finding(str(error), path=str(folder / _REQUEST), next_step=step)
            what = f"{folder} is not a valid rebase: {_REQUEST}: {error}"
            raise InputError(what, (finding,)) from error


def _check(folder: Path, request: Request) -> None:
    """Raises InputError unless the names are of the form that a rebase writes."""
    check_target_name(request.name)
    if request.name != folder.name:
        raise InputError(f"the request is for {request.name}")
    if request.commit is None:
        order(request.onto)
    else:
        check_commit(request.commit)


def _sweep(parent: Path) -> None:
    for gone in parent.glob(f"{_GONE}*"):
        shutil.rmtree(gone, ignore_errors=True)
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
