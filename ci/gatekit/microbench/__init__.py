"""The attention's projection chain as a workload: real kernels, several designs.

The chain is the tree's own code, loaded as ``xscale.numeric`` loads it, on AITER's own
Triton kernels. Attention itself, the two batched GEMMs around it and RoPE are replaced
by constants: they take no activation scale and launch the same kernels in every design.

``arms`` are the compared designs, ``designs`` their replacements for this series'
module, ``gemms`` and ``world`` replace the tree's imports, ``model`` has the layers.
For a release in which upstream has the layout, dead, the arms are that release, its
guard opened alone, and the series; ``own_layers`` are the tree's own, ``launches`` and
``kernels`` replace AITER's HIP kernels by others of one launch each. Then
``profiling`` traces and counts, ``timing`` measures, ``bench`` loops over everything,
``results`` are the figures, ``claims`` the checks; ``page`` and ``plot`` show them.
"""
