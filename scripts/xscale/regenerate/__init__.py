"""Regenerate hunks whose text no longer merges.

Each hunk of the series is one of four edits, recognized by its code and not by its
lines: a producer is called through the adapter, the consumer passes the scale through
``x_scale_for_gemm``, the gather makes it contiguous, and the names are imported. An
edit is made only if exactly one place in the scope matches.

``edit`` chooses the edit; ``call``, ``blocks`` and ``imports`` make it.
"""

from xscale.regenerate.edit import Edit, need_libcst, regenerate

__all__ = ["Edit", "need_libcst", "regenerate"]
