"""Which patches make a site transposed on their own base, and which build on it."""

from __future__ import annotations

import pytest

from conftest import Pins
from support.bases import MARKED, REVIVED
from upstream.contracts import contract_of
from upstream.own_base import OwnBase

SITES = tuple(f"S{n}" for n in range(1, 9))


def adopters(pins: Pins, base: str) -> dict[str, set[str]]:
    carried = pins.overlay[base]
    own = OwnBase(contract_of(carried), carried, pins.tree(base))
    return {site: set(own.adopters(site)) for site in (*SITES, "C")}


@pytest.mark.parametrize("base", MARKED)
def test_each_site_has_its_patch(pins: Pins, base: str) -> None:
    named = {
        site: {patch.name}
        for patch in pins.overlay[base].lock.patches
        for file in patch.files
        for hunk in file.hunks
        for site in hunk.sites
    }
    assert adopters(pins, base) == named


@pytest.mark.parametrize("base", REVIVED)
def test_a_patch_that_opens_a_site_does_not_adopt_it(pins: Pins, base: str) -> None:
    """On 0.5.19 the fused norms write row-major scales: one patch changes that, among
    several that name the sites. On later releases upstream has every site."""
    mine = SITES[:-1] if base == "sglang-0.5.19" else ()
    wanted = {site: set[str]() for site in (*SITES, "C")}
    wanted |= {site: {"0008-producers-transpose.patch"} for site in mine}
    assert adopters(pins, base) == wanted
