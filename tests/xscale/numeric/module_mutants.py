"""Broken scale modules that no call site shows, only the module's own cases.

Each promise is broken in ways that a change might break it; see ``mutants`` for the
form of a mutant.
"""

from __future__ import annotations

from xscale.numeric import Case, Platform, Switch, module_cases
from xscale.numeric.selftest import MODULE, Promise

from .mutants import Edit, Mutant
from .test_numeric import FP8_UTILS, SCALE

_DIFFERS = "differs = seen.view(torch.int32) != reference.view(torch.int32)"
_GROUP = 'kwargs.get("group_size") == _GROUP_SIZE'
_DTYPE = 'kwargs.get("dtype_quant") == torch.float8_e4m3fn'
_HONEST = "scale = scale.as_strided(shape, strides)"
_BY_STRIDES = "for_ck = _view_by_strides(x_scale)"
_USES = "_uses[(site, m, groups)]"
_LOOKS = "    if not _can_check():\n        return\n"
_READS = "if hasattr(x_scale, _REFERENCE):"
_CONSUMES = "x_scale = x_scale_for_gemm(input_scale, bpreshuffle=not use_triton)"
_COMPILING = (
    "    if torch.compiler.is_compiling():\n"
    '        return _unchecked("in code compiled by torch.compile")\n'
)
_CAPTURING = (
    "    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():\n"
    '        return _unchecked("in a captured graph")\n'
)
_CONSTANT = "@torch.compiler.assume_constant_result\ndef "


def _cases(
    promise: Promise,
    switch: Switch | None = None,
    platform: Platform = Platform.GFX95,
) -> tuple[Case, ...]:
    return tuple(
        case
        for case in module_cases()
        if case.promise is promise
        and case.platform is platform
        and switch in (None, case.switch)
    )


def _mutant(
    name: str,
    broken: str,
    old: str,
    new: str,
    cases: tuple[Case, ...],
    path: str = SCALE,
    more: tuple[Edit, ...] = (),
) -> Mutant:
    edits = (Edit(path, old, new), *more)
    return Mutant(name, broken, edits, frozenset({MODULE}), cases)


def _compares(name: str, broken: str, new: str) -> Mutant:
    """Check mode compares something other than all bits."""
    return _mutant(name, broken, _DIFFERS, new, _cases(Promise.EVERY_BIT))


_ON = Switch.ON
_GATE = _cases(Promise.GATE, _ON)
_CONSUMER = _cases(Promise.CONSUMER, _ON)
_EVERY_BIT = _cases(Promise.EVERY_BIT)
_FIRST_USES = _cases(Promise.FIRST_USES)
_CAPTURE = _cases(Promise.CAPTURE)
_COMPILED = _cases(Promise.COMPILED, _ON)
_COMPILED_CHECK = _cases(Promise.COMPILED, Switch.CHECK)
_OLD_ROCM = _cases(Promise.GATE, _ON, Platform.GFX95_OLD)

MODULE_MUTANTS = (
    # What check mode compares.
    _compares(
        "check mode compares the first rows",
        "4,096 of them",
        "differs = seen[:4096].view(torch.int32) != reference[:4096].view(torch.int32)",
    ),
    _compares(
        "check mode compares some groups",
        "all but the last",
        "differs = seen[:, :-1].view(torch.int32) != "
        "reference[:, :-1].view(torch.int32)",
    ),
    _compares(
        "check mode compares every other row",
        "a sample",
        "differs = seen[::2].view(torch.int32) != reference[::2].view(torch.int32)",
    ),
    _compares(
        "check mode compares closely",
        "isclose with its defaults, NaN equal",
        "differs = ~torch.isclose(seen, reference, equal_nan=True)",
    ),
    _compares(
        "check mode compares a sum of values",
        "it misses an exchange of two",
        "differs = seen.double().sum() != reference.double().sum()",
    ),
    _compares(
        "check mode compares a sum of bits",
        "two differences can cancel out",
        "differs = seen.view(torch.int32).sum() != reference.view(torch.int32).sum()",
    ),
    _compares(
        "check mode compares sorted bits",
        "any order is right, also today's",
        "differs = seen.contiguous().view(torch.int32).flatten().sort()[0] != "
        "reference.contiguous().view(torch.int32).flatten().sort()[0]",
    ),
    _compares(
        "check mode compares values",
        "NaN differs from itself, and -0.0 does not from 0.0",
        "differs = seen != reference",
    ),
    _compares(
        "check mode compares values, NaN equal",
        "any NaN for any other, and -0.0 for 0.0",
        "differs = (seen != reference) & ~(seen.isnan() & reference.isnan())",
    ),
    _compares(
        "check mode compares ordered values",
        "it misses values that are too large",
        "differs = seen.view(torch.int32) < reference.view(torch.int32)",
    ),
    _compares(
        "check mode compares half precision",
        "the lower bits are rounded away",
        "differs = seen.bfloat16().view(torch.int16) != "
        "reference.bfloat16().view(torch.int16)",
    ),
    _mutant(
        "check mode ignores one difference",
        "it raises from the second difference on",
        "if differs.any():",
        "if differs.sum() > 1:",
        _EVERY_BIT,
    ),
    _mutant(
        "check mode compares CK's side alone",
        "scales for Triton's GEMM are not checked",
        _READS,
        f"if bpreshuffle and {_READS.removeprefix('if ')}",
        _EVERY_BIT,
    ),
    _mutant(
        "check mode skips single tokens",
        "the layouts coincide there, the values may differ",
        _READS,
        f"if x_scale.shape[0] > 1 and {_READS.removeprefix('if ')}",
        _EVERY_BIT,
    ),
    _mutant(
        "check mode requests its reference transposed",
        "the reference is made the same way",
        "row_major = quant(*args, **kwargs)",
        "row_major = quant(*args, transpose_scale=True, **kwargs)",
        _EVERY_BIT,
    ),
    # Which uses it checks.
    _mutant(
        "check mode checks one use",
        "only the first of the layers that share a call",
        "_CHECKED_USES = 64",
        "_CHECKED_USES = 1",
        _FIRST_USES,
    ),
    Mutant(
        "check mode counts uses of any shape",
        "a warm-up with one token uses them up",
        (
            Edit(SCALE, "if _uses[(site, *scale.shape)]", "if _uses[(site, 0, 0)]"),
            Edit(SCALE, f"    {_USES} += 1", "    _uses[(site, 0, 0)] += 1"),
            Edit(SCALE, f"if {_USES} >", "if _uses[(site, 0, 0)] >"),
        ),
        frozenset({MODULE}),
        _FIRST_USES,
    ),
    _mutant(
        "check mode counts uses of a function",
        "two calls in one function share them",
        'f"{caller.f_code.co_filename}:{caller.f_lineno}"',
        'f"{caller.f_code.co_filename}"',
        _FIRST_USES,
    ),
    _mutant(
        "check mode looks once at each scale",
        "the indexer's wk reads the same scale as qkv_a",
        "    site, reference = getattr(x_scale, _REFERENCE)\n",
        "    site, reference = getattr(x_scale, _REFERENCE)\n"
        "    delattr(x_scale, _REFERENCE)\n",
        _FIRST_USES,
    ),
    # Graph capture.
    _mutant(
        "check mode on under capture",
        "it does not check whether a graph is captured",
        _CAPTURING,
        "",
        _CAPTURE,
    ),
    _mutant(
        "check mode compares under capture",
        "a scale made before a capture is compared in it",
        _LOOKS,
        "",
        _CAPTURE,
    ),
    _mutant(
        "check mode recomputes under capture",
        "the reference goes into the graph",
        '_MODE == "check" and _can_check()',
        '_MODE == "check"',
        _CAPTURE,
    ),
    _mutant(
        "check mode silent under capture",
        "it does not check graphs and does not warn",
        '        return _unchecked("in a captured graph")\n',
        "        return False\n",
        _CAPTURE,
    ),
    # Compiled code.
    _mutant(
        "the missing parameter is reported in a traced region",
        "fullgraph=True fails at the warning, where the release compiles",
        f"{_CONSTANT}_takes_transpose_scale",
        "def _takes_transpose_scale",
        _COMPILED,
    ),
    _mutant(
        "check mode on in compiled code",
        "fullgraph=True fails at the comparison",
        _COMPILING,
        "",
        _COMPILED_CHECK,
    ),
    _mutant(
        "check mode silent in compiled code",
        "it does not check it and does not warn",
        '        return _unchecked("in code compiled by torch.compile")\n',
        "        return False\n",
        _COMPILED_CHECK,
    ),
    _mutant(
        "marked as it came",
        "Dynamo sets no attribute on an operator's result",
        _HONEST,
        f"if scale.stride() != strides:\n        {_HONEST}",
        _COMPILED,
    ),
    # The gate.
    _mutant(
        "any dtype marked",
        "float8_e4m3fnuz among them, which no GEMM of gfx95 reads",
        f"        and {_DTYPE}\n",
        "",
        _GATE,
    ),
    _mutant(
        "any e4m3 marked",
        "the other chip's as well",
        _DTYPE,
        'kwargs.get("dtype_quant") in (torch.float8_e4m3fn, torch.float8_e4m3fnuz)',
        _GATE,
    ),
    _mutant(
        "dtype taken for granted",
        "without a dtype, AITER's default is assumed",
        _DTYPE,
        'kwargs.get("dtype_quant", torch.float8_e4m3fn) == torch.float8_e4m3fn',
        _GATE,
    ),
    _mutant(
        "multiples of 128 marked",
        "groups of 256 have another GEMM",
        _GROUP,
        'kwargs.get("group_size", 1) % _GROUP_SIZE == 0',
        _GATE,
    ),
    _mutant(
        "group size taken for granted",
        "without a group size",
        _GROUP,
        'kwargs.get("group_size", _GROUP_SIZE) == _GROUP_SIZE',
        _GATE,
    ),
    _mutant(
        "smaller groups marked",
        "up to 128",
        _GROUP,
        '(kwargs.get("group_size") or 256) <= _GROUP_SIZE',
        _GATE,
    ),
    _mutant(
        "another predicate",
        "all of gfx95, ROCm 7.0 included",
        "if not fp8_utils._use_aiter_bpreshuffle_gfx95:",
        "if not fp8_utils._use_aiter_gfx95:",
        _OLD_ROCM,
    ),
    _mutant(
        "weights taken for (k, n)",
        "the GEMM is looked up by exchanged sizes",
        "use_aiter_triton_gemm_w8a8_tuned_gfx950(n, k)",
        "use_aiter_triton_gemm_w8a8_tuned_gfx950(k, n)",
        _GATE,
    ),
    Mutant(
        "one answer for all projections",
        "the first one's GEMM is taken for every other's",
        (
            Edit(SCALE, "    key = id(projection)\n", "    key = 0\n"),
            Edit(SCALE, "_answers.get(id(projection))", "_answers.get(0)"),
            Edit(
                SCALE,
                "known[0]() is not projection or known[1] is not quant:",
                "False:",
            ),
        ),
        frozenset({MODULE}),
        _GATE,
    ),
    _mutant(
        "few rows marked",
        "prefill gets no transposed scales",
        "    if not _wants_transposed(quant, projection, kwargs):\n",
        "    if not _wants_transposed(quant, projection, kwargs) or (\n"
        '        getattr(args[0], "shape", (0,))[0] > 1024\n'
        "    ):\n",
        _GATE,
    ),
    _mutant(
        "recomputed in every mode",
        "each quantization runs twice",
        'if _MODE == "check" and _can_check():',
        "if _can_check():",
        _GATE,
    ),
    _mutant(
        "AITER inspected in every call",
        "with a warning each time",
        "@lru_cache(maxsize=None)\ndef _probed",
        "def _probed",
        _GATE,
    ),
    _mutant(
        "no warning for an old AITER",
        "it copies as before without a warning",
        "    logger.warning(\n        \"AITER's",
        "    logger.debug(\n        \"AITER's",
        _GATE,
    ),
    _mutant(
        "gaps between columns accepted",
        "CK's GEMM would read them",
        "    if scale.stride() == (1, m):\n        return scale.as_strided(",
        "    if scale.stride(0) == 1:\n        return scale.as_strided(",
        _GATE,
    ),
    # The switch.
    _mutant(
        "any value of the switch accepted",
        "a misspelt 0 or check is on",
        '        raise ValueError(f"{_SWITCH}={mode!r}: expected 0, 1 or check")\n',
        '        mode = "1"\n',
        _cases(Promise.SWITCH),
    ),
    _mutant(
        "off by default",
        "a server that sets nothing copies as before",
        'os.environ.get(_SWITCH, "1")',
        'os.environ.get(_SWITCH, "0")',
        _cases(Promise.SWITCH),
    ),
    # The consumer.
    _mutant(
        "any mark trusted",
        "its strides are not checked for Triton's GEMM",
        _BY_STRIDES,
        f"{_BY_STRIDES} if bpreshuffle else x_scale",
        _CONSUMER,
    ),
    _mutant(
        "the kept view trusted",
        "other bytes may have come under the same mark",
        "        and kept[0].data_ptr() == x_scale.data_ptr()\n",
        "",
        _CONSUMER,
    ),
    _mutant(
        "the kept view's layout trusted",
        "another shape, or other strides, may have come under the same mark",
        "        and kept[1] == x_scale.shape\n"
        "        and kept[2] == x_scale.stride()\n",
        "",
        _CONSUMER,
    ),
    _mutant(
        "the kept view known by its address",
        "a scale from another process has it by chance, and a view of other bytes",
        "kept[0].data_ptr() == x_scale.data_ptr()",
        "kept[3] == x_scale.data_ptr()",
        _CONSUMER,
        more=(Edit(SCALE, "shape, strides))", "shape, strides, scale.data_ptr()))"),),
    ),
    _mutant(
        "any attribute a mark",
        "one that says no as well",
        "if not getattr(x_scale, _MARKER, False):",
        "if not hasattr(x_scale, _MARKER):",
        _CONSUMER,
    ),
    _mutant(
        "unmarked scales taken by their strides",
        "the rows of a transposed scale have the strides of no scale",
        "if not getattr(x_scale, _MARKER, False):",
        "if not getattr(x_scale, _MARKER, x_scale.stride(0) == 1):",
        _CONSUMER,
    ),
    _mutant(
        "the consumer leaves long scales alone",
        "from 1,024 rows on",
        _CONSUMES,
        f"{_CONSUMES} if len(input_scale) < 1024 else input_scale",
        _CONSUMER,
        FP8_UTILS,
    ),
    _mutant(
        "the consumer always given CK",
        "Triton's GEMM reads transposed bytes",
        _CONSUMES,
        "x_scale = x_scale_for_gemm(input_scale, bpreshuffle=True)",
        _CONSUMER,
        FP8_UTILS,
    ),
    _mutant(
        "the consumer skips single groups",
        "and few rows: what is thought to coincide there",
        _CONSUMES,
        f"{_CONSUMES} if min(input_scale.shape) > 3 else input_scale",
        _CONSUMER,
        FP8_UTILS,
    ),
)
