"""The engine of a carried patch series: trees, series, plans, landings, transactions.

It knows upstream sources as bytes and Python scopes, and nothing of what any one
series is for. Layers look down only: ``errors`` and ``objects`` at the bottom, then
``git`` and ``trees``, then ``patches``, ``series`` and ``scopes``, then ``manifest``
and ``lock``, then ``plan`` (with ``merge``), then ``transaction``; the verbs on top.
"""
