"""The attention's projection chain as a workload: real kernels, several designs.

What lies between a layer's input and its output is the tree's own code, loaded as
``xscale.numeric`` loads it, on AITER's own Triton kernels. Attention itself, the two
batched GEMMs around it and RoPE are left out: they take no activation scale and launch
the same kernels whatever the design, and here they hand on constants.

``arms`` are the designs compared, ``designs`` their stand-ins for this series' module,
``gemms`` and ``world`` what the tree's imports give it, ``model`` the layers,
``profiling`` traces and counts, ``timing`` the clock, ``bench`` the loop over all of
it, ``results`` what comes out and ``claims`` what is held against it; ``page`` and
``plot`` show it.
"""
