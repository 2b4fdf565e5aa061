"""Whether the series' sites would run on a machine, and what each of them lacks.

``answers`` is what can be said of a condition. ``machine``, ``producers`` and
``adoption`` ask the machine, an AITER and an SGLang tree, each for the conditions that
it decides; ``page`` shows. Nothing is taken from a version.
"""
