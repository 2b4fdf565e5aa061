"""Judge a recorded run. Worker side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from overlaykit.core.errors import Finding
from xscale.numeric.cases import GROUP, Case, Chain, Switch, Variant
from xscale.numeric.gemms import Read
from xscale.numeric.handling import handling_findings
from xscale.numeric.producers import STAND_IN_QUANT, Produced, same_bits
from xscale.numeric.results import COPIED, CaseResult, Reading, Route, Spot
from xscale.numeric.scale_ways import copying_lines, spoiling_lines
from xscale.numeric.sources import Sources
from xscale.numeric.watch import Watched
from xscale.sites import CATALOGUE, FLATTEN, PARAMETER, without_parameter

_CHECK_MODE_ERROR = "activation scale is wrong"
"""The error of this series' check mode."""


@dataclass
class Run:
    """The record of one run of one chain. ``producers`` is keyed by ``id`` of a read.
    ``absent`` are the readers that this tree gives no scale to read."""

    reads: list[Read]
    producers: dict[int, Produced | None]
    outputs: list[Any]
    asked: bool
    raised: str | None
    quantized: int
    changed: list[Produced]
    watched: Watched
    absent: frozenset[str] = frozenset()
    raised_at: Spot | None = None

    def read(self, projection: str, number: int = 0) -> Read | None:
        """The projection's reading with that number, if any."""
        found = [read for read in self.reads if read.projection == projection]
        return found[number] if number < len(found) else None


def judge(
    case: Case, run: Run, pristine: Run | None, tree: Sources, seconds: float
) -> CaseResult:
    """Judge a run. ``tree`` says whether it claims to avoid copies and to have a
    switch."""
    readings = tuple(
        reading
        for projection in case.chain.sites
        for number in range(sum(r.projection == projection for r in run.reads))
        if (reading := _reading(case, run, pristine, projection, number)) is not None
    )
    outputs = None
    if pristine is not None and run.raised is None and pristine.raised is None:
        revived = any(_revived(r, run, pristine) for r in run.reads)
        outputs = None if revived else _same_all(run.outputs, pristine.outputs)
    outcome = CaseResult(
        case,
        readings,
        len(run.watched.relayouts),
        seconds,
        run.asked,
        outputs,
        run.raised,
        _detail(readings),
        raised_at=run.raised_at,
    )
    found = list(_findings(outcome, pristine, tree, run.absent))
    if case.m and not case.tests_check_mode:
        found += handling_findings(case, run, pristine, tree.has_switch)
    reached_stubs = tuple(sorted({event.what for event in run.watched.stub_calls}))
    return replace(outcome, findings=tuple(found), reached_stubs=reached_stubs)


def behind_result(case: Case, run: Run, seconds: float) -> CaseResult:
    """A situation behind the guard holds if the tree's own code gets through it."""
    result = CaseResult(
        case, (), 0, seconds, raised=run.raised, raised_at=run.raised_at
    )
    if run.raised is None:
        return result
    found = tuple(
        _finding(
            site,
            case,
            "a fault behind the guard",
            "no error",
            run.raised,
            spot=run.raised_at,
        )
        for site in sorted(case.sites)
    )
    return replace(result, findings=found)


def _findings(
    outcome: CaseResult,
    pristine: Run | None,
    tree: Sources,
    absent: frozenset[str],
) -> Iterator[Finding]:
    if outcome.case.tests_check_mode:
        yield from _check_mode_findings(outcome)
    elif outcome.case.m == 0:
        yield from _no_token_findings(outcome, pristine)
    else:
        row_major = _row_major(outcome) if tree.has_switch else frozenset()
        yield from _run_findings(outcome, tree.adopts, row_major, absent)
        yield from _reading_findings(outcome, tree.adopts, row_major)
        if tree.has_switch:
            yield from _mark_findings(outcome, row_major)


def _reading(
    case: Case, run: Run, pristine: Run | None, projection: str, number: int
) -> Reading | None:
    read = run.read(projection, number)
    if read is None:
        return None
    made = run.producers[id(read)]
    base = pristine.read(projection, number) if pristine is not None else None
    if pristine is not None and base is not None and _revived(read, run, pristine):
        base = None
    wrong, values, gemm = _wrong(read, made), None, None
    if base is not None:
        # None means that the GEMM itself raised.
        got = read.output is not None and base.output is not None
        gemm = got and same_bits(read.output, base.output)
        values = same_bits(read.q, base.q) and (
            read.seen is None or same_bits(read.seen, base.seen)
        )
    shape, strides = tuple(read.scale.shape), tuple(read.scale.stride())
    copied = made is not None and read.scale.data_ptr() != made.scale.data_ptr()
    return Reading(
        case.chain.sites[projection],
        projection,
        read.route,
        (shape[0], shape[1]),
        (strides[0], strides[1]),
        made.kernel if made is not None else "unknown",
        read.stand_in,
        read.marked,
        wrong == 0,
        int(copied),
        wrong,
        values,
        gemm,
        made is not None and made.asked,
        made is None or made.can_transpose,
        spoiling_lines(read, made, run.watched.steps) if wrong and made else (),
        copying_lines(read, run.watched.steps) if copied else (),
    )


def _revived(read: Read, run: Run, pristine: Run) -> bool:
    """Whether a fused kernel makes the scale of a projection that quantizes for itself
    in the pristine tree: other arithmetic, so its bits prove nothing."""
    made = run.producers[id(read)]
    if made is None or made.kernel == STAND_IN_QUANT:
        return False
    bases = [b for b in pristine.reads if b.projection == read.projection]
    kernels = [one.kernel for b in bases if (one := pristine.producers[id(b)])]
    return STAND_IN_QUANT in kernels


def _wrong(read: Read, made: Produced | None) -> int:
    """The number of values that differ from the kernel's; all if the kernel is
    unknown."""
    total = int(read.scale.numel())
    if made is None or not made.q_right:
        return total
    if read.route is not Route.ELEMENTWISE:
        return _differing(read.seen, made.truth)
    m, k = made.q.shape
    blocks = made.q.float().view(m, k // GROUP, GROUP)
    right = (blocks * made.truth.unsqueeze(-1)).view(m, k).to(torch.bfloat16)
    same = isinstance(read.output, torch.Tensor) and same_bits(read.output, right)
    return 0 if same else total


def _differing(seen: Any, truth: Any) -> int:
    if seen.shape != truth.shape or seen.dtype != truth.dtype:
        return int(truth.numel())
    return int((seen.view(torch.int32) != truth.view(torch.int32)).sum())


def _same_all(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(
        same_bits(a, b) for a, b in zip(left, right, strict=True)
    )


def _detail(readings: tuple[Reading, ...]) -> str:
    return "; ".join(
        f"{r.projection} ({r.route.value}): "
        f"{'right' if r.bytes else f'{r.wrong} of {r.shape[0] * r.shape[1]} wrong'}, "
        f"{r.copies} copies, strides {r.strides}{', marked' if r.marked else ''}"
        for r in readings
    )


def _transposes(case: Case, adopts: bool) -> bool:
    return adopts and case.platform.bpreshuffle and case.switch is not Switch.OFF


def _row_major(outcome: CaseResult) -> frozenset[str]:
    """Sites whose projection uses Triton's GEMM; no transposed scale is requested
    there."""
    if not outcome.case.chain.knows_projection:
        return frozenset()
    return frozenset(
        r.site
        for r in outcome.readings
        if r.projection in outcome.case.chain.first and r.route is Route.TRITON
    )


def _allowed(
    case: Case, reading: Reading, adopts: bool, row_major: frozenset[str]
) -> int:
    """The number of copies that are expected between a producer and one reader."""
    if reading.route is not Route.BPRESHUFFLE:
        return 0
    site = reading.site
    lacks = site == "S8" and case.variant is Variant.NO_FLATTEN
    as_ever = lacks or case.chain.gathers or site in row_major
    return int(as_ever or not _transposes(case, adopts))


def _run_findings(
    outcome: CaseResult,
    adopts: bool,
    row_major: frozenset[str],
    absent: frozenset[str],
) -> list[Finding]:
    case, found = outcome.case, []
    if outcome.raised is not None:
        return [
            _finding(
                site,
                case,
                "raises",
                "no error",
                outcome.raised,
                spot=outcome.raised_at,
            )
            for site in sorted(case.sites)
        ]
    read = {r.projection for r in outcome.readings}
    if case.platform.gfx95:
        found += [
            _finding(
                site, case, f"{projection} gets no scale", "one reading", "no reading"
            )
            for projection, site in case.chain.sites.items()
            if projection not in read and projection not in absent
        ]
    allowed = sum(_allowed(case, r, adopts, row_major) for r in outcome.readings)
    if case.chain.gathers and _transposes(case, adopts):
        # It moves raw bytes, so its input is made row-major first.
        allowed += 1
    # The head gate reads no GEMM's scale; wk beside it is the input chains' to judge.
    if case.chain is not Chain.INDEXER and outcome.relayouts > max(
        allowed, sum(r.copies for r in outcome.readings)
    ):
        found += [
            _finding(
                site,
                case,
                "a scale is copied between producer and GEMM",
                f"at most {allowed} copies",
                f"{outcome.relayouts} copies",
            )
            for site in sorted(case.sites)
        ]
    if outcome.outputs is False:
        found += [
            _finding(
                site, case, "returns other values", "the pristine tree's", "others"
            )
            for site in sorted(case.sites)
            if all(r.gemm is not False for r in outcome.readings)
        ]
    return found


def _reading_findings(
    outcome: CaseResult, adopts: bool, row_major: frozenset[str]
) -> list[Finding]:
    case, found = outcome.case, []
    for r in outcome.readings:
        total = r.shape[0] * r.shape[1]
        where = f"{r.projection} on the {r.route.value} route"
        if not r.bytes:
            found.append(
                _finding(
                    r.site,
                    case,
                    f"{where} reads a wrong scale",
                    f"the {total} values that {r.producer} computed",
                    f"{r.wrong} of {total} wrong; shape {r.shape}, strides "
                    f"{r.strides}, {'marked' if r.marked else 'unmarked'}",
                    spot=next(iter(r.spoiled), None),
                )
            )
        elif r.gemm is False or r.values is False:
            found.append(
                _finding(
                    r.site,
                    case,
                    f"{where} computes other values",
                    "the pristine tree's, bit for bit",
                    "another " + ("GEMM output" if r.values else "scale or fp8 tensor"),
                )
            )
        allowed = _allowed(case, r, adopts, row_major)
        if r.copies > allowed:
            found.append(
                _finding(
                    r.site,
                    case,
                    f"{where} {COPIED}",
                    "the storage that the kernel wrote",
                    "another storage",
                    r.can_transpose,
                    next(iter(r.copied_at), None),
                )
            )
        dead = r.producer == STAND_IN_QUANT and case.chain is not Chain.INDEXER
        if dead and _transposes(case, adopts):
            found.append(
                _finding(
                    r.site,
                    case,
                    f"{where} is never given a fused scale",
                    "a scale from AITER's fused quantization",
                    "a quantization in the linear itself: the site is dead",
                )
            )
    return found


def _mark_findings(outcome: CaseResult, row_major: frozenset[str]) -> Iterator[Finding]:
    """Findings about the switch and the mark, which bytes do not show.

    With honest strides a scale is right on any platform, marked or not. A tree without
    the switch is not judged here, because it promises none of this.
    """
    case = outcome.case
    keeps = not case.chain.gathers and case.chain is not Chain.INDEXER
    for r in outcome.readings:
        where = f"{r.projection} on the {r.route.value} route"
        mark = "marked" if r.marked else "unmarked"
        transposes = _transposes(case, adopts=True) and r.site not in row_major
        if not transposes and (r.asked or r.marked):
            yield _finding(
                r.site,
                case,
                f"{where} receives a scale that is not the release's own",
                "no transposed scale requested, and no mark, on this platform, with "
                "this switch and for this GEMM",
                f"a {'transposed' if r.asked else 'row-major'} scale requested, {mark}",
            )
        elif transposes and keeps and r.asked and not r.marked:
            yield _finding(
                r.site,
                case,
                f"{where} receives a transposed scale without its mark",
                "marked: the consumer and check mode rely on it",
                mark,
            )


def _check_mode_findings(outcome: CaseResult) -> Iterator[Finding]:
    """AITER ignored the flag: the tree must raise before a GEMM reads the scale."""
    case, silent = outcome.case, {r.site for r in outcome.readings if not r.bytes}
    expected = "an error that names the call: AITER ignored the flag"
    for site in sorted(silent):
        yield _finding(
            site, case, "check mode lets a wrong scale through", expected, "no error"
        )
    message = outcome.raised
    if message is not None and not any(
        _is_error_of(message, s) for s in case.sites - silent
    ):
        for site in sorted(case.sites):
            yield _finding(
                site, case, "check mode raises another error", expected, message
            )


def _is_error_of(message: str, site: str) -> bool:
    """Whether this is check mode's error for the call of the site."""
    (one,) = (entry for entry in CATALOGUE if entry.id == site)
    return all(
        text in message for text in (_CHECK_MODE_ERROR, one.kernel, one.function or "")
    )


def _no_token_findings(outcome: CaseResult, pristine: Run | None) -> Iterator[Finding]:
    """M = 0: there are no bytes, and all pointers are equal. A run may fail, as with
    CK, but only if the pristine tree fails as well."""
    case, message = outcome.case, outcome.raised
    before = pristine.raised if pristine is not None else None
    if message is not None:
        if _error(message) == _error(before):
            return
        what, expected, found = "raises", before or "no error", message
    elif outcome.outputs is False or any(r.gemm is False for r in outcome.readings):
        what, expected, found = "returns other values", "the pristine tree's", "others"
    else:
        return
    for site in sorted(case.sites):
        yield _finding(site, case, what, expected, found)


def _error(raised: str | None) -> str | None:
    """The error without its line."""
    return raised.partition(" (")[0] if raised is not None else None


_NO_PARAMETER = f"unexpected keyword argument '{PARAMETER}'"


def _finding(
    site: str,
    case: Case,
    what: str,
    expected: str,
    found: str,
    can_transpose: bool = True,
    spot: Spot | None = None,
) -> Finding:
    path, line = (spot.path, spot.line) if spot is not None else (None, None)
    raises = _NO_PARAMETER in found
    if raises or not can_transpose:
        kernel = next((s.kernel for s in CATALOGUE if s.id == site), "kernel")
        step = without_parameter(kernel)
        if kernel == FLATTEN:
            step += ", or run scripts/apply.py on this AITER if it is the pinned one"
        if raises:
            expected = "a tree that does not need it, or an AITER that has it"
            step += (
                "; or request a row-major scale if the parameter is missing, as the "
                "series does"
            )
        return Finding(
            f"{what}: this AITER's {kernel} has no parameter {PARAMETER} ({case})",
            path,
            line,
            site=site,
            expected=expected,
            found=found,
            next_step=step,
        )
    return Finding(
        f"{what} ({case})",
        path,
        line,
        site=site,
        expected=expected,
        found=found,
        next_step="run verify.py without --numeric: the census shows what the source "
        "of this site requests",
    )
