"""Replacements for the series' ``bpreshuffle_scale``: other designs on its call sites.

Each is the shortest code with its design's tensors and launches. None has the checks
that serving needs, so the series is compared with the lowest cost of each design.
"""
