"""What this process has brought about so far, for whoever must say it.

A verb that is interrupted, or that fails after its commit point, has no report. Each
writer leaves word here the moment its change is final, so that the message can say
where every tree stands.
"""

from __future__ import annotations

_effects: dict[str, str] = {}


def record_effect(place: str, what: str) -> None:
    """Leave word that ``what`` now holds of the tree or file ``place``."""
    _effects[place] = what


def recorded_effects() -> tuple[tuple[str, str], ...]:
    """All that was told, as pairs (place, what), oldest first."""
    return tuple(_effects.items())
