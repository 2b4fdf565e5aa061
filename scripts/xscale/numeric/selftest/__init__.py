"""Tests the promises of the tree's scale module that no call site shows.

The matrix runs the calls that a tree makes. They do not show what the module does with
another dtype, a wrong bit, a captured graph or a compiled region. So here its two
functions are called directly, between the tree's own consumer and quantizers that
return what a case needs (AITER's kernels cannot be made wrong at one place). Only trees
with this series' switch are tested; others promise none of it.

Importing this package does not need PyTorch; ``running`` needs it, in the worker.
"""

from xscale.numeric.selftest.cases import MODULE, ModuleCase, Promise, module_cases

__all__ = ["MODULE", "ModuleCase", "Promise", "module_cases"]
