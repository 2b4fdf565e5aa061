"""The changes that this process has finished so far.

A verb that is interrupted, or that fails after its commit point, returns no report.
Each writer records its change here as soon as it is final, so that the message can
name the state of every tree.
"""

from __future__ import annotations

_effects: dict[str, str] = {}


def record_effect(place: str, what: str) -> None:
    """Record that ``what`` is now true of the tree or file ``place``."""
    _effects[place] = what


def recorded_effects() -> tuple[tuple[str, str], ...]:
    """All recorded effects, as pairs (place, what), oldest first."""
    return tuple(_effects.items())
