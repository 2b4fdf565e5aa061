"""Stand-ins for the series' ``bpreshuffle_scale``: other designs on its call sites.

Each is the shortest that has its design's tensors and launches; none is gated as one
that is served has to be, so that the series is compared with the least that they cost.
"""
