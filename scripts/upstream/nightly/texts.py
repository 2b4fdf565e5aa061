"""What a night found, as the title and the body of a pull request or an issue."""

from __future__ import annotations

from collections.abc import Iterator

from upstream.nightly.night import Night, Outcome

ISSUE = "The series does not carry to upstream's main"
"""The title of the one issue; it is found again by it."""


def title(night: Night) -> str:
    """The title of the pull request, which has the commit; or that of the issue."""
    if night.outcome is Outcome.CARRIED:
        return f"Carry the series to upstream's main at {night.commit[:12]}"
    return ISSUE


def body(night: Night) -> str:
    """The body, in Markdown."""
    return "\n".join(_lines(night))


def summary(night: Night) -> str:
    """One line for a terminal."""
    where = f"{night.name} at {night.commit[:12]}"
    if night.outcome is Outcome.STOPPED:
        return f"{where}: {night.outcome.value} at {night.checks[-1].verb}"
    return f"{where}: {night.outcome.value}"


def _lines(night: Night) -> Iterator[str]:
    carried = night.outcome is Outcome.CARRIED
    yield (
        f"Upstream's main was {night.about}. The series of `{night.start}` was made "
        f"again for it as `{night.name}`."
        if carried
        else f"Upstream's main was {night.about}. The series of `{night.start}` could "
        f"not be carried there: `{night.checks[-1].verb}` stopped."
    )
    yield from ("", "| verb | | |", "|---|---|---|")
    for check in night.checks:
        mark = "holds" if check.holds else "**does not hold**"
        yield f"| `{check.verb}` | {mark} | {_cell(check.said)} |"
    yield "| on an MI355X | not run | |"
    if night.findings:
        yield from ("", "```text")
        for finding in night.findings:
            yield from finding.lines()
        yield "```"
    yield ""
    if carried:
        yield "Files:"
        yield from ("", *(f"- `{path}`" for path in night.changed))
    else:
        yield from _by_hand(night)
    if night.matrix:
        yield from ("", "<details><summary>The matrix</summary>", "")
        yield from (night.matrix.rstrip(), "", "</details>")
    yield ""


def _by_hand(night: Night) -> Iterator[str]:
    yield from ("By hand, in a clone of this overlay:", "", "```sh")
    yield f"scripts/rebase.py --from {night.start} --onto {night.commit} \\"
    yield "  --clone UPSTREAM"
    yield "scripts/rebase.py --continue    # after each conflict"
    yield f"scripts/rebase.py --adopt --as {night.name}    # or --replace {night.name}"
    yield "```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
