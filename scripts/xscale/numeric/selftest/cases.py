"""The promises of the scale module, as cases beside those of the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from xscale.numeric.cases import Case, Chain, Platform, Switch

MODULE = "module"
"""The name used in findings instead of a site."""


class Promise(Enum):
    """One promise of the module's documentation."""

    SWITCH = "reads its switch, and refuses other values"
    GATE = "requests and marks group-128 float8_e4m3fn scales for CK's GEMM alone"
    CONSUMER = "passes any scale to either GEMM as that GEMM reads it"
    EVERY_BIT = "check mode compares every bit of every element"
    FIRST_USES = "check mode checks the first uses of each shape at each call"
    CAPTURE = "check mode leaves graph capture alone, and warns about it"
    COMPILED = "compiles as one graph wherever the release does"


@dataclass(frozen=True)
class ModuleCase(Case):
    """One promise, on one platform, with one value of the switch.

    A :class:`Case`, so that it is run with the others; its chain has no meaning.
    """

    promise: Promise = Promise.GATE

    def __str__(self) -> str:
        return (
            f"scale module: {self.promise.value}; "
            f"switch {self.switch.value}; {self.platform.value}"
        )

    @property
    def sites(self) -> frozenset[str]:
        return frozenset({MODULE})

    @property
    def tests_check_mode(self) -> bool:
        """As for a :class:`Case`: skipped for a tree without the switch, and not
        summarized."""
        return True


def module_cases() -> tuple[ModuleCase, ...]:
    """Every promise, for each switch value or platform that it depends on."""
    return (
        _case(Promise.SWITCH, Switch.ON),
        *(
            _case(Promise.GATE, switch, platform)
            for platform in Platform
            for switch in Switch
        ),
        *(_case(Promise.CONSUMER, switch) for switch in Switch),
        *(_case(Promise.COMPILED, switch) for switch in Switch),
        _case(Promise.EVERY_BIT),
        _case(Promise.FIRST_USES),
        _case(Promise.CAPTURE),
    )


def _case(
    promise: Promise,
    switch: Switch = Switch.CHECK,
    platform: Platform = Platform.GFX95,
) -> ModuleCase:
    return ModuleCase(Chain.CORE, 3, switch=switch, platform=platform, promise=promise)
