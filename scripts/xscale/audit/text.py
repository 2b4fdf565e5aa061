"""The audit as text: Markdown that reads as plain text, so that what a terminal shows
can be pasted into a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from overlaykit.core.wording import one_line
from xscale.audit.auditing import Audit
from xscale.audit.faults import Fault
from xscale.audit.guards import DeadGuard

_WIDTH = 88
_HOW = (
    "How this was found: the guards were opened in memory, by letting their read find "
    "the attribute that these linears have; the rest of the tree is as it is. The "
    "tree's own code then ran {cases} cases with AITER's own Triton kernels on one "
    "device ({device}), once with the guards shut and once with them open. Listed is "
    "only what is new with them open. CK's GEMMs, the attention itself and collectives "
    "are stand-ins. Nothing was timed."
)


def rendered(audit: Audit) -> str:
    """The whole text."""
    return "\n".join(map(one_line, _lines(audit))) + "\n"


def _lines(audit: Audit) -> Iterator[str]:
    if not audit.guards:
        yield from _nothing_dead(audit)
        return
    names = " and ".join(f"`{guard.name}`" for guard in audit.guards)
    yield f"## What opening {names} meets"
    yield ""
    yield from wrap(f"SGLang {audit.sglang}, AITER {audit.aiter}.", _WIDTH)
    yield ""
    for guard in audit.guards:
        yield from _item("-", _of_guard(guard, audit.format))
    yield ""
    yield from _effect(audit)
    for guard in audit.shut:
        yield from _item("-", f"still shut: {_of_guard(guard, audit.format)}")
    yield ""
    yield f"### Faults: {len(audit.faults)}"
    yield ""
    if not audit.faults:
        why = "." if audit.revived else ", and nothing could be: no site is live."
        yield f"None was found{why}"
    for number, fault in enumerate(audit.faults, 1):
        yield from _of_fault(f"{number}.", fault)
    if audit.not_judged:
        yield from ("", f"### Not judged: {len(audit.not_judged)}", "")
        for one in audit.not_judged:
            yield from _item("-", f"{one.case}: {one.why}")
    yield ""
    how = _HOW.format(cases=audit.cases, device=audit.device)
    yield from wrap(how, _WIDTH)


def _nothing_dead(audit: Audit) -> Iterator[str]:
    sites = ", ".join(state.site for state in audit.before)
    yield f"No guard is dead here: for {audit.format}, {sites} are live."


def _of_guard(guard: DeadGuard, form: str) -> str:
    return (
        f"`{guard.at}`, `{guard.function}`, reads `{guard.reads}`; linears of {form} "
        f"have `{guard.instead}`. Behind it: {', '.join(guard.sites)}."
    )


def _effect(audit: Audit) -> Iterator[str]:
    """What becomes of each site: the names are this project's, so places go with
    them."""
    yield f"Live with it open: {', '.join(audit.revived) or 'no site'}."
    yield ""
    for one in audit.after:
        where = f"`{one.at}`: " if one.at else ""
        yield from _item("-", f"{one.site} {one.state.value}: {where}{one.reason}")


def _of_fault(mark: str, fault: Fault) -> Iterator[str]:
    function = f" (`{fault.function}`)" if fault.function else ""
    where = f"`{fault.at}`{function}" if fault.at else "no line of the tree"
    yield from _item(mark, f"{where} {fault.what}: {fault.found}.")
    yield from _item(" " * len(mark), f"Sites: {', '.join(fault.sites)}.")
    yield from _item(" " * len(mark), f"Seen in: {'; '.join(fault.cases)}.")


def _item(mark: str, text: str) -> Iterable[str]:
    """A list item, or with a blank mark more of the last one; no word is broken."""
    return wrap(
        text,
        _WIDTH,
        initial_indent=f"{mark} ",
        subsequent_indent=" " * len(f"{mark} "),
        break_long_words=False,
        break_on_hyphens=False,
    )
