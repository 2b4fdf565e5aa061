"""The text of a pull request, from the patch headers.

Results that the patches do not state appear as "not run". The submitter may fill them
in; a reader never mistakes a missing result for a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlaykit.series.carried import Carried
from overlaykit.series.lock import LockedPatch
from overlaykit.series.quilt import Header, read_header


@dataclass(frozen=True)
class Sections:
    """The section titles in an upstream's template."""

    motivation: str = "Motivation"
    modifications: str = "Modifications"
    accuracy: str = "Accuracy Tests"
    speed: str = "Speed Tests and Profiling"
    checklist: str = "Checklist"


_TEMPLATES = {
    "https://github.com/ROCm/aiter": Sections(
        modifications="Technical Details",
        accuracy="Test Plan",
        speed="Test Result",
        checklist="Submission Checklist",
    )
}
"""Upstreams whose template has other titles; all others get SGLang's."""

_ACCURACY = (
    "Not run: this text comes from the patch headers alone, which contain no result. "
    "No end-to-end accuracy evaluation (baseline against this change) is claimed."
)
_SPEED = (
    "Not run: the export had no throughput, latency or profile of this change, and "
    "none is claimed."
)


def pull_request(carried: Carried) -> bytes:
    """The pull request text, in Markdown."""
    names = _TEMPLATES.get(carried.target.repository, Sections())
    headers = [read_header(patch) for patch in carried.series.patches]
    target = carried.target
    about = [f"tag {target.tag}"] if target.tag else []
    about += [f"commit {carried.lock.commit}"] if carried.lock.commit else []
    base = target.release + (f" ({', '.join(about)})" if about else "")
    links = dict.fromkeys(header.fields["Forwarded"] for header in headers)
    blocks = [
        f"## {names.motivation}",
        _prose(headers[0]).partition("\n\n")[0],
        f"Made for {base}, as a series of {len(headers)}. "
        f"Earlier discussion: {', '.join(links)}.",
        f"## {names.modifications}",
    ]
    blocks += [
        _modification(header, locked)
        for header, locked in zip(headers, carried.lock.patches, strict=True)
    ]
    if carried.new_files:
        listed = "\n".join(f"- `{new.path}`" for new in carried.new_files)
        blocks += ["### New files", listed]
    blocks += [f"## {names.accuracy}", _ACCURACY, f"## {names.speed}", _SPEED]
    blocks += [f"## {names.checklist}", _checklist(carried)]
    return ("\n\n".join(blocks) + "\n").encode()


def _prose(header: Header) -> str:
    """A patch's description without its fields."""
    return header.body.rpartition("\n\n")[0] or header.subject


def _modification(header: Header, locked: LockedPatch) -> str:
    rows = dict.fromkeys(
        f"- `{file.path}`: `{hunk.scope}`"
        for file in locked.files
        for hunk in file.hunks
    )
    return f"### {header.subject}\n\n{_prose(header)}\n\n" + "\n".join(rows)


def _checklist(carried: Carried) -> str:
    tests = [f.path for f in carried.new_files if "test" in f.path.split("/")[0]]
    added = f" (in this change: {', '.join(tests)})" if tests else ""
    rows = (
        "Format the code with the repository's pre-commit hooks (not run here)",
        f"Add unit tests{added}",
        "Update documentation and docstrings as needed",
        "Provide accuracy and speed results (not run, see above)",
    )
    return "\n".join(f"- [ ] {row}" for row in rows)
