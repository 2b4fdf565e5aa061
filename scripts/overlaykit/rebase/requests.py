"""Begins a rebase: checks the request, and finds the active rebase that it means."""

from __future__ import annotations

from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.gitnames import is_commit
from overlaykit.core.versions import order
from overlaykit.rebase.bases import resolve
from overlaykit.rebase.folder import Request, Work, active_rebases, rebases_folder
from overlaykit.series.carried import load_overlay, target_named


def new_request(
    root: Path,
    target: str,
    start: str,
    onto: str,
    clone: Path | None,
    regenerate: bool,
) -> Request:
    """The request to rebase the series of ``start`` onto ``onto``, for ``target``.

    Raises InputError if the overlay does not have these targets, if they are not bases
    of one package, or if ``onto`` is neither a commit of the clone, nor a full commit
    id, nor another release.
    """
    overlay = load_overlay(root)
    for name in (target, start):
        target_named(overlay, name)
    if overlay[start].target.package != overlay[target].target.package:
        raise InputError(f"{start} is not a base of {target}")
    clone = clone.resolve() if clone else None
    commit = resolve(clone, onto) if clone else onto if is_commit(onto) else None
    if commit is None:
        _check_version(onto)
    old = overlay[start].target
    known = old.commit if commit else old.dist.version if old.dist else None
    if known is not None and known == (commit or onto):
        raise InputError(f"{onto} already is the base of {start}")
    return Request(
        f"{target}-{commit[:12] if commit else onto}",
        onto,
        target,
        start,
        regenerate,
        str(clone) if clone else None,
        commit,
    )


def _check_version(onto: str) -> None:
    try:
        order(onto)
    except InputError as error:
        step = (
            "name a released version, all 40 digits of a commit, or with --clone any "
            "commit, branch or tag of that clone"
        )
        finding = Finding("is not a base", found=onto, next_step=step)
        raise InputError(error.message, (finding,)) from None


def begin(root: Path, request: Request) -> Work:
    """The folder for a request, new or as it is. Raises InputError if a rebase of that
    name is active with other options."""
    for work in active_rebases(root):
        if work.request.name == request.name and work.request != request:
            step = "end that rebase with --abort, or use the same options"
            finding = Finding(
                "was begun with other options", path=str(work.folder), next_step=step
            )
            raise InputError(f"a rebase {request.name} is active", (finding,))
    return Work(rebases_folder(root) / request.name, request)


def pick(root: Path, onto: str | None) -> Work | None:
    """The active rebase, or the one onto ``onto``; None if there is none.

    Raises InputError if there is more than one.
    """
    works = [
        work
        for work in active_rebases(root)
        if onto in (None, work.request.onto, work.request.commit)
    ]
    if len(works) > 1:
        names = ", ".join(work.request.onto for work in works)
        step = "name one with --onto"
        finding = Finding("more than one rebase", found=names, next_step=step)
        raise InputError(f"{len(works)} rebases are active", (finding,))
    return works[0] if works else None
