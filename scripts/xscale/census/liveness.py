"""Whether a producing call can run with native block-FP8 layers."""

from __future__ import annotations

from xscale.census.flow import TooManyPaths, is_reachable
from xscale.census.layers import NativeLayers, native_layers, set_elsewhere
from xscale.census.modules import Module, Modules, Place
from xscale.census.path_records import Layers
from xscale.sites import CATALOGUE

NEVER_RUNS = "never runs: "
"""How the reason for a dead call begins."""
_PROJECTIONS = {p.rpartition(".")[2] for site in CATALOGUE for p in site.projections}


class Liveness:
    """Determines the liveness of a tree's calls."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._native: dict[str, NativeLayers | None] = {}
        self._elsewhere: dict[tuple[str, str], str | None] = {}

    def of(self, module: Module, place: Place) -> tuple[bool | None, str]:
        """Whether native block-FP8 layers pass the tests that guard a call.

        True if they pass and every tested attribute is known. False if they are proven
        to fail because an attribute is missing. None if the source leaves it open or no
        test reads a projection. Returned together with the reason.
        """
        function, call = place.function, place.call
        if function is None or call is None:
            return None, ""
        probe = Layers(_PROJECTIONS, (), ())
        try:
            reached = is_reachable(self._modules, module, function, call, probe)
            native = self._native_near(module.path) if probe.asked else None
            if not reached or native is None:
                return None, ""
            layers = Layers(_PROJECTIONS, native.has, native.has_not)
            lives = is_reachable(self._modules, module, function, call, layers)
        except TooManyPaths:
            return None, ""
        if lives:
            known_names = {*native.has, *native.has_not}
            known = all(name in known_names for _, name in layers.asked)
            return (True if known else None), ""
        return self._reason(layers, native)

    def _native_near(self, path: str) -> NativeLayers | None:
        folder = path.rpartition("/")[0]
        if folder not in self._native:
            self._native[folder] = native_layers(self._modules, path)
        return self._native[folder]

    def _reason(self, layers: Layers, native: NativeLayers) -> tuple[bool | None, str]:
        missing = sorted(pair for pair in layers.asked if pair[1] in native.has_not)
        for layer, name in missing:
            if (layer, name) not in self._elsewhere:
                found = set_elsewhere(self._modules, layer, name)
                self._elsewhere[layer, name] = found
            if (elsewhere := self._elsewhere[layer, name]) is not None:
                return None, f"{layer}.{name} is set at {elsewhere}"
        wants = ", ".join(
            f"{layer}.{name}, where native block FP8 has {native.instead_of(name)}"
            for layer, name in missing
        )
        tests = ", ".join(sorted(layers.predicates)) or "its guard"
        if not missing:
            return None, ""
        return False, f"{NEVER_RUNS}{tests} demands {wants}"
