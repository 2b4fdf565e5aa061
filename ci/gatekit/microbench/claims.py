"""The controls and claims about the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from gatekit.microbench.arms import Arm
from gatekit.microbench.results import GEMMS, Cell, Claim, Row, Time
from xscale.numeric.cases import DEEPSEEK_V3, GLM51

BOUND = 1.03
"""The largest allowed ratio of the series' time to the bound's."""
NOISE = 0.01
"""The tolerance of "no slower"."""

_QUANTIZATIONS = 3
_SHOWN = 3
_FEW = 256
"""Rows of a decoding step; more are a prefill's."""


def claims_of(cells: Sequence[Cell]) -> tuple[Claim, ...]:
    """The controls, then the claims that apply to these cells."""
    if not cells:
        return ()
    if any(row.arm == Arm.GUARD_ALONE.value for row in cells[0].rows):
        return (*_revived_controls(cells), *_launches(cells), *_revived_times(cells))
    return (*_controls(cells), *_copies(cells), *_times(cells))


def _controls(cells: Sequence[Cell]) -> Iterator[Claim]:
    yield _values(
        "every arm's GEMMs give the pristine pin's bits, eager and replayed", cells
    )
    yield _seen(cells)
    if any(cell.noise is not None for cell in cells):
        yield _rows(
            f"a layer has {_QUANTIZATIONS} quantizations, {GEMMS} GEMMs and nothing "
            "else but copies",
            cells,
            lambda _, row: (
                (row.quantizations, row.gemms, row.others) == (_QUANTIZATIONS, GEMMS, 0)
            ),
            lambda row: f"{row.quantizations}, {row.gemms}, and {row.others} others",
            control=True,
        )
        yield _noise(cells)


def _copies(cells: Sequence[Cell]) -> Iterator[Claim]:
    yield _rows(
        "the pin copies once before each of CK's GEMMs; at M = 1 never",
        cells,
        lambda cell, row: row.copies == (cell.bpreshuffle if cell.m > 1 else 0),
        lambda row: f"{row.copies:g} copies",
        arm=Arm.PRISTINE,
    )
    yield _rows(
        "this series copies nothing; if Triton's GEMM reads a scale first, "
        "no more than the pin",
        cells,
        lambda cell, row: row.copies <= _unavoidable(cell, row),
        lambda row: f"{row.copies:g} copies",
        arm=Arm.SERIES,
    )


def _unavoidable(cell: Cell, row: Row) -> float:
    """The pin's copies, if Triton's GEMM is the first to read a scale."""
    mixed = cell.bpreshuffle < GEMMS
    return cell.row(Arm.PRISTINE.value, row.mode).copies if mixed else 0


def _times(cells: Sequence[Cell]) -> Iterator[Claim]:
    glm = _of(cells, GLM51.name)
    if glm:
        yield _replays(
            f"replayed, this series takes at most {BOUND} of the bound's time",
            glm,
            lambda _, row: _to_bound(row) <= BOUND,
        )
    if later := [cell for cell in glm if cell.m > 1]:
        yield _replays(
            "replayed, this series is faster than the pin at every M >= 2",
            later,
            lambda _, row: row.time is not None and row.time.to_pristine < 1,
        )
    for name, those in (
        ("at M = 1", [cell for cell in glm if cell.m == 1]),
        ("on DeepSeek-V3's shapes", _of(cells, DEEPSEEK_V3.name)),
    ):
        if those:
            yield _replays(
                f"replayed, this series is no slower than the pin {name}",
                those,
                lambda _, row: (
                    row.time is not None and row.time.to_pristine <= 1 + NOISE
                ),
            )


def _revived_controls(cells: Sequence[Cell]) -> Iterator[Claim]:
    yield _values(
        "every arm's GEMMs give the release's values within rounding, and a replay the "
        "bits of its own eager run",
        cells,
    )
    yield _seen(cells)
    yield _rows(
        f"a layer has {GEMMS} GEMMs, and nothing else but norms and quantizations",
        cells,
        lambda _, row: (row.gemms, row.others) == (GEMMS, 0),
        lambda row: f"{row.gemms:g} GEMMs and {row.others:g} others",
        control=True,
    )
    if any(cell.noise is not None for cell in cells):
        yield _noise(cells)


def _launches(cells: Sequence[Cell]) -> Iterator[Claim]:
    yield _rows("no arm copies", cells, lambda _, row: row.copies == 0, _counted)
    expectations: tuple[tuple[str, Arm, Callable[[Cell], tuple[int, int]]], ...] = (
        (
            "the release has two separate norms, and quantizes for every GEMM that "
            "does not do it by itself",
            Arm.PRISTINE,
            lambda cell: (2, GEMMS - cell.small_m),
        ),
        (
            "with the guard alone no norm is separate, and qkv_a's input is quantized "
            "once more for wk",
            Arm.GUARD_ALONE,
            lambda _: (0, GEMMS),
        ),
        (
            "this series quantizes once for qkv_a and wk, and leaves the norm and the "
            "quantization alone where a GEMM quantizes by itself",
            Arm.SERIES,
            lambda cell: (cell.small_m, GEMMS - 1 - cell.small_m),
        ),
    )
    for what, arm, expected in expectations:

        def as_expected(
            cell: Cell, row: Row, of: Callable[[Cell], tuple[int, int]] = expected
        ) -> bool:
            return (row.norms, row.quantizations) == of(cell)

        yield _rows(what, cells, as_expected, _counted, arm=arm)


def _counted(row: Row) -> str:
    return (
        f"{row.norms:g} norms, {row.quantizations:g} quantizations, "
        f"{row.copies:g} copies"
    )


def _revived_times(cells: Sequence[Cell]) -> Iterator[Claim]:
    for name in dict.fromkeys(cell.shape for cell in cells):
        timed = _of(cells, name)
        if few := [cell for cell in timed if cell.m <= _FEW]:
            yield _replays(
                f"replayed, this series is faster than the release with {name}'s "
                f"shapes up to M = {_FEW}",
                few,
                lambda _, row: _to_pristine(row) < 1,
            )
        if many := [cell for cell in timed if cell.m > _FEW]:
            yield _replays(
                f"replayed, this series is no slower than the release with {name}'s "
                "shapes and more rows",
                many,
                lambda _, row: _to_pristine(row) <= 1 + NOISE,
            )
        if timed:
            yield _replays(
                "replayed, this series is no slower than the guard alone with "
                f"{name}'s shapes",
                timed,
                lambda cell, row: _to_guard(cell, row) <= 1 + NOISE,
            )


def _to_pristine(row: Row) -> float:
    return math.inf if row.time is None else row.time.to_pristine


def _to_guard(cell: Cell, row: Row) -> float:
    guard = cell.row(Arm.GUARD_ALONE.value, row.mode).time
    if row.time is None or guard is None:
        return math.inf
    return row.time.to_pristine / guard.to_pristine


def _values(what: str, cells: Sequence[Cell]) -> Claim:
    def wrong(cell: Cell) -> list[str]:
        return [f"{_at(cell)}: {name}" for name in cell.differing]

    return _each(what, cells, wrong, control=True)


def _seen(cells: Sequence[Cell]) -> Claim:
    return _rows(
        "the profiler saw every call of the attention module, and no call in a replay",
        cells,
        lambda _, row: row.attentions == (row.traced if row.mode == "eager" else 0),
        lambda row: f"{row.attentions} of {row.traced} calls",
        control=True,
    )


def _noise(cells: Sequence[Cell]) -> Claim:
    return _each(
        f"an arm captured twice takes the same time, within {NOISE:.0%}",
        cells,
        lambda cell: (
            [f"{_at(cell)}: {cell.noise:.2%}"] if (cell.noise or 0) > NOISE else []
        ),
        control=True,
    )


def _to_bound(row: Row) -> float:
    time = row.time
    return math.inf if time is None or time.to_bound is None else time.to_bound


def _of(cells: Iterable[Cell], shape: str) -> list[Cell]:
    """The timed cells of a shape."""
    return [cell for cell in cells if cell.shape == shape and cell.noise is not None]


def _replays(
    what: str, cells: Sequence[Cell], holds: Callable[[Cell, Row], bool]
) -> Claim:
    """A claim about the series' replays, with the figures even if it holds."""
    rows = [(cell, cell.row(Arm.SERIES.value, "replay")) for cell in cells]
    found = ", ".join(
        f"M={cell.m}: {_compared(cell, row.time)}"
        for cell, row in rows
        if row.time is not None
    )
    return Claim(what, all(holds(cell, row) for cell, row in rows), found)


def _compared(cell: Cell, time: Time) -> str:
    if time.to_bound is not None:
        return f"{time.to_pristine:.3f} of the pin, {time.to_bound:.3f} of the bound"
    to_guard = _to_guard(cell, cell.row(Arm.SERIES.value, "replay"))
    return f"{time.to_pristine:.3f} of the release, {to_guard:.3f} of the guard alone"


def _rows(
    what: str,
    cells: Sequence[Cell],
    holds: Callable[[Cell, Row], bool],
    found: Callable[[Row], str],
    *,
    arm: Arm | None = None,
    control: bool = False,
) -> Claim:
    def wrong(cell: Cell) -> list[str]:
        return [
            f"{_at(cell)}: {row.arm}, {row.mode}: {found(row)}"
            for row in cell.rows
            if arm in (None, Arm(row.arm)) and not holds(cell, row)
        ]

    return _each(what, cells, wrong, control)


def _each(
    what: str,
    cells: Sequence[Cell],
    wrong: Callable[[Cell], list[str]],
    control: bool = False,
) -> Claim:
    found = [one for cell in cells for one in wrong(cell)]
    text = "; ".join(found[:_SHOWN]) or f"in all of {len(cells)} cells"
    if more := found[_SHOWN:]:
        text += f"; and {len(more)} more"
    return Claim(what, not found, text, control)


def _at(cell: Cell) -> str:
    return f"{cell.shape}, M={cell.m}"
