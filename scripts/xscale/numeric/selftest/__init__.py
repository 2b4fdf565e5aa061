"""Does the tree's scale module keep its own promises, where no call site shows it?

The matrix runs the calls that a tree makes; what the module would do with another
dtype, a wrong bit, a captured graph or a compiled region, none of them asks. So here
the module's two functions are called themselves, between quantizers that return what
a case needs (AITER's kernels cannot be made wrong at one place) and the tree's
own consumer. Only trees with this series' switch are asked: others promise none of it.

Importing this package needs no PyTorch; ``running`` does, in the worker.
"""

from xscale.numeric.selftest.cases import MODULE, ModuleCase, Promise, module_cases

__all__ = ["MODULE", "ModuleCase", "Promise", "module_cases"]
