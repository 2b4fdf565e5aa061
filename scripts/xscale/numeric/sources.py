"""Find the code in a tree that writes, moves and reads activation scales.

Definitions are found in any file. The modules to load are found by their imports and
texts. The result is small, plain data, so a worker process needs no tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.syntax import shared
from overlaykit.trees.search import files_with
from overlaykit.trees.tree import Tree
from xscale.sites import FLATTEN, GEMM, MARKER, PRODUCERS, RMS

LINEAR = "aiter_w8a8_block_fp8_linear"
PREPARE = "prepare_attn"
GATHER = "_scattered_to_tp_attn_full"
MLA = "forward_absorb_prepare"
CORE = "forward_absorb_core"
MHA = "forward_normal_prepare"
CONTEXT = "get_attn_tp_context"
HEAD_GATE = "_get_logits_head_gate"
"""The indexer's other use of its input besides its GEMM; its caller dequantizes."""

LAYER, LATENT = "decoder layer", "prepare_qkv_latent"
METHOD, KINDS = "Fp8LinearMethod", ("ReplicatedLinear", "ColumnParallelLinear",
                                    "RowParallelLinear")  # fmt: skip
STAGES, STACK, START = "_build_stages", "layer_stack", "start the stream"
DISPATCH = "dispatch_attn_forward_method"

_BOUNDARY = "layers/layer_boundary"
_BETWEEN = {
    LAYER: ("models/deepseek_v2", "DeepseekV2DecoderLayer.forward"),
    LATENT: ("models/deepseek_v2", f"DeepseekV2AttentionMLA.{LATENT}"),
    DISPATCH: ("models/deepseek_v2", f"DeepseekV2AttentionMLA.{DISPATCH}"),
    METHOD: ("layers/quantization/fp8", f"{METHOD}.apply"),
    **{kind: ("layers/linear", f"{kind}.forward") for kind in KINDS},
    STAGES: ("models/deepseek_v2", f"DeepseekV2DecoderLayer.{STAGES}"),
    STACK: (f"{_BOUNDARY}/factories", STACK),
    START: (f"{_BOUNDARY}/residual/batch", "start"),
}
"""Code between a producer and its consumers; it is run if the tree has it here."""

_RUN_TOO = (
    "models.deepseek_common.attention_backend_handler",
    "models.deepseek_common.utils",
    "layers.parameter",
    "layers.quantization.base_config",
)
"""Modules that decide which of the functions runs, or register weights."""

SWITCH = "SGLANG_AITER_PRETRANSPOSED_SCALE"

_FUNCTIONS = (LINEAR, PREPARE, GATHER, MLA, CORE, MHA, HEAD_GATE, CONTEXT)
_TELLING = tuple(name.encode() for name in (*PRODUCERS, MARKER, SWITCH))
_SGLANG_ROOT = "python/"
_SGLANG = "sglang"
_TRITON_GEMM = "gemm_a8w8_blockscale"
_AITER_FOLDER = "aiter/ops/triton/"
# Where to look before searching thousands of files; only speed depends on it.
_LIKELY = tuple(
    f"python/sglang/srt/{path}.py"
    for path in (
        "layers/quantization/fp8_utils",
        "layers/communicator",
        "models/deepseek_common/attention_forward_methods/forward_mla",
        "models/deepseek_common/attention_forward_methods/forward_mha",
        "layers/attention/nsa/nsa_indexer",
        "layers/attention/dsa/dsa_indexer",
    )
)
_LIKELY_KERNELS = tuple(
    f"{_AITER_FOLDER}{path}.py"
    for path in (
        "fused_fp8_quant",
        "quant/fused_fp8_quant",
        "gemm_a8w8_blockscale",
        "gemm/basic/gemm_a8w8_blockscale",
    )
)


@dataclass(frozen=True)
class Place:
    """A definition: its module and its dotted name there. ``owner`` is its class, or
    ''."""

    module: str
    name: str

    @property
    def owner(self) -> str:
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Sources:
    """The modules to load, by dotted name as (path, source).

    ``foreign`` holds the top-level names that they import.
    """

    tree: str
    places: Mapping[str, Place]
    modules: Mapping[str, tuple[str, bytes]]
    foreign: frozenset[str]

    @property
    def adopts(self) -> bool:
        """Whether any caller of a producing kernel handles transposed scales."""
        texts = [data.decode(errors="replace") for _, data in self.modules.values()]
        return any(
            MARKER in text
            or ("transpose_scale" in text and (RMS in text or FLATTEN in text))
            for text in texts
        )

    @property
    def has_switch(self) -> bool:
        """Whether the tree has the scale module: its marks, and its switch with a check
        mode. A series without it mends upstream's own producers, and its switch only
        shuts them."""
        both = SWITCH.encode(), MARKER.encode()
        return any(all(b in data for b in both) for _, data in self.modules.values())

    @property
    def mends_upstream(self) -> bool:
        """Whether the tree has a series without the scale module."""
        named = any(SWITCH.encode() in data for _, data in self.modules.values())
        return named and not self.has_switch


def sglang_sources(tree: Tree, also: Iterable[str] = ()) -> Sources:
    """Collect the sources; ``also`` lists further modules to run, if the tree has them.

    A function that is missing is left out: what cannot be driven without it says so.
    Raises InputError if the consumer itself is missing.
    """
    places = _find(tree, _FUNCTIONS, _LIKELY, f"{_SGLANG_ROOT}{_SGLANG}/srt/")
    if LINEAR not in places:
        missing = [name for name in _FUNCTIONS if name not in places]
        raise _missing(tree, missing, "python/sglang/srt", "SGLang")
    places |= _places_between(tree)
    owners = {place.owner.encode() for place in places.values() if place.owner}
    modules: dict[str, tuple[str, bytes]] = {}
    module_at = cache(partial(_module, tree, root=_SGLANG_ROOT))
    too = (f"{_SGLANG}.srt.{module}" for module in _RUN_TOO)
    queue = [*also, *too, *(place.module for place in places.values())]
    while queue:
        module = queue.pop()
        if module in modules or (found := module_at(module)) is None:
            continue
        modules[module] = found
        queue += _related_modules(module_at, module, *found, owners)
    foreign = {
        name.partition(".")[0]
        for module, (path, data) in modules.items()
        for name, _ in _imports(module, path, data)
    }
    return Sources(tree.name, places, modules, frozenset(foreign))


def module_of(tree: Tree, name: str) -> str | None:
    """The module of SGLang's tree that contains a dotted name, if any."""
    parts = name.partition("(")[0].split(".")
    if parts[0] != _SGLANG:
        return None
    dotted = (".".join(parts[:end]) for end in range(len(parts) - 1, 1, -1))
    found = (one for one in dotted if _module(tree, one, _SGLANG_ROOT) is not None)
    return next(found, None)


def aiter_sources(tree: Tree) -> Sources:
    """Raises InputError if a wrapper of a producing kernel is missing in the tree.

    A wrapper that only later releases have is left out.
    """
    wanted = (*PRODUCERS, _TRITON_GEMM)
    places = _find(tree, wanted, _LIKELY_KERNELS, _AITER_FOLDER)
    if missing := [name for name in PRODUCERS if name not in places]:
        raise _missing(tree, missing, _AITER_FOLDER, "AITER")
    modules: dict[str, tuple[str, bytes]] = {}
    queue = [place.module for place in places.values()]
    while queue:
        module = queue.pop()
        if module in modules or (found := _module(tree, module, "")) is None:
            continue
        modules[module] = found
        queue += [
            name
            for imported, names in _imports(module, *found)
            for name in (imported, *(f"{imported}.{n}" for n in names))
            if name.startswith("aiter.ops.triton.")
        ]
    return Sources(tree.name, places, modules, frozenset())


def _places_between(tree: Tree) -> dict[str, Place]:
    found = {}
    for name, (module, dotted) in _BETWEEN.items():
        path = f"{_SGLANG_ROOT}{_SGLANG}/srt/{module}.py"
        data = tree.read(path) or b""
        method = dotted.rpartition(".")[2]
        if any(dotted == one for _, one in _definitions(path, data, (method,))):
            found[name] = Place(_module_name(path), dotted)
    return found


def _missing(tree: Tree, names: list[str], where: str, what: str) -> InputError:
    findings = tuple(
        Finding(
            f"function {name} cannot be found",
            path=where,
            expected=f"a definition of {name}",
            found="no module defines it",
            next_step=f"use a tree of {what} that defines it; if upstream renamed it, "
            "add the new name to xscale.numeric.sources",
        )
        for name in names
    )
    listed = ", ".join(names)
    return InputError(f"{tree.name}: cannot find {listed}", findings)


def _find(
    tree: Tree, names: tuple[str, ...], likely: tuple[str, ...], below: str
) -> dict[str, Place]:
    found: dict[str, Place] = {}
    weak: dict[str, Place] = {}

    texts = [f"def {name}".encode() for name in names]

    def look(path: str, data: bytes) -> None:
        # Prefer a file that mentions these kernels.
        strong = any(k.encode() in data for k in (*PRODUCERS, GEMM, HEAD_GATE))
        for name, dotted in _definitions(path, data, names):
            place = Place(_module_name(path), dotted)
            (found if strong else weak).setdefault(name, place)

    for path in likely:
        data = tree.read(path)
        if data is not None and any(text in data for text in texts):
            look(path, data)
    if len(found) < len(names):
        for path, data in files_with(tree, below, texts):
            if path not in likely:
                look(path, data)
    return {**weak, **found}


@lru_cache(maxsize=256)
def _definitions(
    path: str, data: bytes, names: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    def walk(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
        for child in _statements(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{owner}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                if child.name in names:
                    yield child.name, owner + child.name
            elif isinstance(child, (ast.If, ast.Try)):
                yield from walk(child, owner)

    return tuple(walk(_parse(path, data), ""))


def _related_modules(
    module_at: Callable[[str], tuple[str, bytes] | None],
    module: str,
    path: str,
    data: bytes,
    owners: set[bytes],
) -> Iterator[str]:
    """Imported modules that define flags of this one, call a producing kernel or handle
    a scale's layout, packages that re-export one of the classes, and all modules of the
    layer boundaries."""
    for imported, names in _imports(module, path, data):
        if imported.partition(".")[0] != _SGLANG:
            continue
        if any(n.startswith("_") for n in names):
            yield imported
        for candidate in (imported, *(f"{imported}.{n}" for n in names)):
            found = module_at(candidate)
            if found is None:
                continue
            path, text = found
            re_exports = path.endswith("__init__.py") and any(o in text for o in owners)
            boundary = f"/{_BOUNDARY}/" in path
            if re_exports or boundary or any(name in text for name in _TELLING):
                yield candidate


@lru_cache(maxsize=1024)
def _imports(
    module: str, path: str, data: bytes
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """All imports that can run, as (module, names); not those for type checkers."""
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]

    checks_types = b"TYPE_CHECKING" in data

    def walk(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
        for child in _statements(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, ()) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = package.split(".")
                    up = parents[: len(parents) - child.level + 1]
                    base = ".".join([*up, base] if base else up)
                yield base, tuple(alias.name for alias in child.names)
            elif (
                checks_types
                and isinstance(child, ast.If)
                and re.search(r"\bTYPE_CHECKING$", ast.unparse(child.test))
            ):
                for other in child.orelse:
                    yield from walk(other)
            else:
                yield from walk(child)

    return tuple(walk(_parse(path, data)))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in a node, and the parts of it that hold some."""
    blocks = (ast.stmt, ast.ExceptHandler, ast.match_case)
    return (one for one in ast.iter_child_nodes(node) if isinstance(one, blocks))


def _parse(path: str, data: bytes) -> ast.Module:
    try:
        return shared(data)
    except SyntaxError as error:
        finding = Finding(
            f"does not parse as Python: {error.msg}",
            path=path,
            line=error.lineno,
            next_step="restore the file, then run this again",
        )
        raise InputError(f"{path} cannot be loaded", (finding,)) from error


def _module(tree: Tree, module: str, root: str) -> tuple[str, bytes] | None:
    path = root + module.replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if (data := tree.read(candidate)) is not None:
            return candidate, data
    return None


def _module_name(path: str) -> str:
    inside = path.removeprefix(_SGLANG_ROOT).removesuffix(".py")
    return inside.removesuffix("/__init__").replace("/", ".")
