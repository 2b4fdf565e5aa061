"""The controls and claims about the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from gatekit.microbench.arms import Arm
from gatekit.microbench.results import Cell, Claim, Row
from xscale.numeric.cases import DEEPSEEK_V3, GLM51

BOUND = 1.03
"""The largest allowed ratio of the series' time to the bound's."""
NOISE = 0.01
"""The tolerance of "no slower"."""

_QUANTIZATIONS, _GEMMS = 3, 4
_SHOWN = 3


def claims_of(cells: Sequence[Cell]) -> tuple[Claim, ...]:
    """The controls, then the claims that apply to these cells."""
    if not cells:
        return ()
    return (*_controls(cells), *_copies(cells), *_times(cells))


def _controls(cells: Sequence[Cell]) -> Iterator[Claim]:
    yield _each(
        "every arm's GEMMs give the pristine pin's bits, eager and replayed",
        cells,
        lambda cell: [f"{_at(cell)}: {name}" for name in cell.differing],
        control=True,
    )
    yield _rows(
        "the profiler saw every call of the attention module, and no call in a replay",
        cells,
        lambda _, row: row.attentions == (row.traced if row.mode == "eager" else 0),
        lambda row: f"{row.attentions} of {row.traced} calls",
        control=True,
    )
    if any(cell.noise is not None for cell in cells):
        yield _rows(
            f"a layer has {_QUANTIZATIONS} quantizations, {_GEMMS} GEMMs and nothing "
            "else but copies",
            cells,
            lambda _, row: (
                (row.quantizations, row.gemms, row.others)
                == (_QUANTIZATIONS, _GEMMS, 0)
            ),
            lambda row: f"{row.quantizations}, {row.gemms}, and {row.others} others",
            control=True,
        )
        yield _each(
            f"an arm captured twice takes the same time, within {NOISE:.0%}",
            cells,
            lambda cell: (
                [f"{_at(cell)}: {cell.noise:.2%}"] if (cell.noise or 0) > NOISE else []
            ),
            control=True,
        )


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
    mixed = cell.bpreshuffle < _GEMMS
    return cell.row(Arm.PRISTINE.value, row.mode).copies if mixed else 0


def _times(cells: Sequence[Cell]) -> Iterator[Claim]:
    glm = _of(cells, GLM51.name)
    if glm:
        yield _replays(
            f"replayed, this series takes at most {BOUND} of the bound's time",
            glm,
            lambda row: row.time is not None and row.time.to_bound <= BOUND,
        )
    if later := [cell for cell in glm if cell.m > 1]:
        yield _replays(
            "replayed, this series is faster than the pin at every M >= 2",
            later,
            lambda row: row.time is not None and row.time.to_pristine < 1,
        )
    for name, those in (
        ("at M = 1", [cell for cell in glm if cell.m == 1]),
        ("on DeepSeek-V3's shapes", _of(cells, DEEPSEEK_V3.name)),
    ):
        if those:
            yield _replays(
                f"replayed, this series is no slower than the pin {name}",
                those,
                lambda row: row.time is not None and row.time.to_pristine <= 1 + NOISE,
            )


def _of(cells: Iterable[Cell], shape: str) -> list[Cell]:
    """The timed cells of a shape."""
    return [cell for cell in cells if cell.shape == shape and cell.noise is not None]


def _replays(what: str, cells: Sequence[Cell], holds: Callable[[Row], bool]) -> Claim:
    """A claim about the series' replays, with the figures even if it holds."""
    rows = [(cell, cell.row(Arm.SERIES.value, "replay")) for cell in cells]
    found = ", ".join(
        f"M={cell.m}: {row.time.to_pristine:.3f} of the pin, "
        f"{row.time.to_bound:.3f} of the bound"
        for cell, row in rows
        if row.time is not None
    )
    return Claim(what, all(holds(row) for _, row in rows), found)


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
