"""Minimal layers around the tree's functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from xscale.numeric.cases import GROUP, Chain, Platform, Variant
from xscale.numeric.gemms import Gemms, Reads
from xscale.numeric.producers import Kernels, Produced, Recorder, raw, stand_in_quant
from xscale.numeric.stubs import Anything, Double
from xscale.numeric.watch import Watch, unrecorded
from xscale.sites import GEMM, MARKER, PRODUCERS

RANKS = 2
_EPSILON = 1e-6
_names: set[str] = set()
"""The names that a world answers for; the same in every one."""


class StopRun(Exception):
    """Raised by a double to stop a run when everything needed is recorded."""


@dataclass
class World:
    """The values of one island's stubs, and their records of one run."""

    platform: Platform
    variant: Variant
    kernels: Kernels
    device: str
    recorder: Recorder = field(default_factory=Recorder)
    reads: Reads = field(default_factory=Reads)
    gather: Gather | None = None
    buffer: Any = None
    capturing: bool = False
    probe: Any = None
    looked_up: list[Any] | None = None
    absent: set[str] = field(default_factory=set)
    registered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parallel: Any = field(default_factory=lambda: parallel(0, 1))
    flags: Any = field(default_factory=lambda: ForwardFlags("forward flags"))
    _remembered: dict[Any, Any] = field(default_factory=dict)

    @property
    def fp8(self) -> Any:
        return torch.float8_e4m3fn if self.platform.gfx95 else torch.float8_e4m3fnuz

    def clear(self, watch: Watch | None = None) -> None:
        """Forget the last run. The objects stay, because the island keeps
        references."""
        self.recorder.clear(watch)
        self.reads.all = []
        self.capturing = False
        self.absent = set()
        self.parallel = parallel(0, 1)
        self.flags = ForwardFlags("forward flags")

    def remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        """What depends on the island alone, made once."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def norm(self, width: int) -> Norm:
        """The RMSNorm of a layer."""
        return Norm(width, self.device)

    def answer(self, module: str, name: str) -> Any:
        """A stub module's ``Answer``; by name, because modules move."""
        if name in PRODUCERS:
            if not self.platform.gfx95:
                raise KeyError(name)
            return self.kernels.recorded(name, self.variant, self.recorder)
        if name == "gemm_a8w8_blockscale":
            gemms = self._gemms()
            return gemms.triton if ".triton" in module else gemms.row_major
        if not _names:
            _names.update(self._answers())
        if name not in _names:
            # Most names are unknown, and the answers are made for each request.
            raise KeyError(name)
        return self._answers()[name]

    def _gemms(self) -> Gemms:
        # The other float8 is for gfx942 only, and only that machine compiles it.
        own = self.device != "cpu" and self.fp8 == torch.float8_e4m3fn
        return Gemms(self.reads, self.kernels.triton_gemm if own else None)

    def _answers(self) -> dict[str, Any]:
        backend = SimpleNamespace(
            get_indexer_metadata=lambda *_, **__: Anything("metadata"),
            kv_cache_dtype=None,
            data_type=None,
            prefill_attention_backend_str=None,
            decode_attention_backend_str=None,
        )
        group = Double()
        vars(group)["all_gather_into_tensor"] = self._all_gather
        return {
            "is_hip": lambda: True,
            "is_gfx95_supported": lambda: self.platform.gfx95,
            "get_hip_version": lambda: self.platform.hip,
            "get_device_capability": lambda: (9, 5 if self.platform.gfx95 else 4),
            "get_bool_env_var": _bool_env_var,
            "is_fp8_fnuz": lambda: not self.platform.gfx95,
            "fp8_dtype": self.fp8,
            "get_is_capture_mode": lambda: self.capturing,
            "torch_release": tuple(map(int, torch.__version__.split(".")[:2])),
            "dtypes": SimpleNamespace(fp8=self.fp8, bf16=torch.bfloat16),
            GEMM: self._gemms().bpreshuffle,
            "get_hip_quant": lambda _: stand_in_quant(self.recorder),
            "batched_gemm_a8w8_a_per_token_group_prequant_w_per_batched_tensor_quant": (
                self._batched_gemm
            ),
            "fused_qk_rmsnorm": _two_norms,
            "get_attn_backend": lambda: backend,
            "attention_backends": _backends,
            "get_server_args": _server_arguments,
            "get_global_server_args": _server_arguments,
            "get_parallel": lambda: self.parallel,
            "get_forward": lambda: self.flags,
            "get_exec": _execution,
            "get_tensor_model_parallel_rank": lambda: 0,
            "get_tensor_model_parallel_world_size": lambda: 1,
            "get_group_rank_size": lambda _: (0, 1),
            "envs": _environment(),
            "divide": _divide,
            "cdiv": lambda numerator, denominator: -(-numerator // denominator),
            "get_device_core_count": lambda: 256,
            # It declines: its table has none of the shapes.
            "smallm_fp8_blockscale_gfx950": SimpleNamespace(
                try_smallm_fp8_bs_linear=lambda *_: None
            ),
            "shuffle_weight": _as_it_is_shuffled,
            "get_attention_tp_group": lambda: group,
            "get_tp_group": lambda: group,
            "attn_tp_all_gather_into_tensor": self._all_gather,
            # Values that are not tuples are gathered into the model runner's buffer.
            "get_local_dp_buffer": lambda *_, **__: self.buffer,
            "act_quant": lambda x, *_, **__: (x, x),
            "rearrange": _in_heads,
            "hadamard_transform": lambda x, *_, **__: x,
        }

    def _batched_gemm(self, X: Any, WQ: Any, **_: Any) -> Any:
        """(heads, M, columns) bf16, the same for any input."""
        with unrecorded():
            return Draw("bmm", self.device)(WQ.shape[0], X.shape[0], WQ.shape[1])

    def _all_gather(self, output: Any, local: Any, *_: Any, **__: Any) -> None:
        if self.gather is None:
            raise RuntimeError("a collective outside the gathering chains")
        with unrecorded():
            self.gather(output, local, self.recorder)


def parallel(rank: int, ranks: int) -> Any:
    """The parallel configuration: tensor parallel, whose dense layers run on each
    rank's own rows if there are several."""
    one: Any = Anything("parallel")
    one.tp_rank = one.attn_tp_rank = rank
    one.tp_size = one.attn_tp_size = ranks
    one.attn_dp_size = one.attn_cp_size = one.moe_dp_size = one.pp_size = 1
    one.moe_dense_tp_size = 1 if ranks > 1 else None
    return one


class ForwardFlags(Anything):
    """The state of one forward pass that a release keeps outside of its layers."""

    def set(self, name: str, value: Any) -> None:
        vars(self)[name] = value


def _environment() -> Any:
    """SGLang's environment variables; all others are unset."""
    one: Any = Anything("envs")
    one.SGLANG_USE_AITER.get = lambda: True
    return one


def _backends() -> tuple[str, str]:
    """Of prefill and of decoding."""
    return "nsa", "nsa"


def _server_arguments() -> Any:
    one: Any = Anything("server arguments")
    one.get_attention_backends = _backends
    return one


def _execution() -> Any:
    one: Any = Anything("execution")
    one.comm.boundary_reduction = "ar"
    return one


def _divide(numerator: int, denominator: int) -> int:
    return numerator // denominator


def _as_it_is_shuffled(weight: Any, *_: Any, **__: Any) -> Any:
    """The GEMMs' stand-ins read weights that are not shuffled."""
    return weight.clone()


class Gather:
    """An all-gather along dim 0 over two ranks, like NCCL's; ranks run in turn.

    First every rank runs and contributes its data; then rank 0 runs again and receives
    everything. c10d requires contiguous tensors; pynccl moves the bytes of all elements
    from the data pointer on. Neither reads strides.
    """

    def __init__(self, c10d: bool) -> None:
        self._c10d = c10d
        self._given: list[list[Any]] = []
        self._known: list[list[Produced | None]] = []
        self._replay: Iterator[int] | None = None
        self._last: tuple[Any, list[Produced]] | None = None

    def rank(self) -> None:
        """The next run is the next rank's."""
        self._given.append([])
        self._known.append([])

    def all_given(self) -> None:
        """The next run is rank 0's, with the data of all ranks."""
        self._replay = iter(range(len(self._given[0])))

    def __call__(self, output: Any, local: Any, recorder: Recorder) -> None:
        if self._c10d and not (local.is_contiguous() and output.is_contiguous()):
            raise ValueError("Tensors must be contiguous")
        if self._replay is None:
            self._given[-1].append(raw(local))
            self._known[-1].append(recorder.of(local))
            raw(output).zero_()
            return
        turn = next(self._replay)
        parts = [raw(local), *(given[turn] for given in self._given[1:])]
        raw(output).copy_(torch.cat(parts))
        ranks = [recorder.of(local), *(known[turn] for known in self._known[1:])]
        known = [one for one in ranks if one is not None]
        if len(known) == len(ranks):
            self._last = output, known
        elif self._last and tuple(local.shape) == tuple(self._last[1][0].truth.shape):
            q, known = self._last
            first = known[0]
            recorder.produced(
                Produced(
                    first.kernel,
                    q,
                    output,
                    torch.cat([one.truth for one in known]),
                    all(one.q_right for one in known),
                    first.asked,
                )
            )


class Draw:
    """Reproducible bf16 activations; every group of every row has its own magnitude.

    Otherwise equal maxima would give equal scales and hide a transposition.
    """

    def __init__(self, seed: object, device: str) -> None:
        number = int.from_bytes(repr(seed).encode(), "big") % (1 << 62)
        self._generator = torch.Generator().manual_seed(number)
        self._device = device

    def __call__(self, *shape: int) -> Any:
        with unrecorded():
            return self._drawn(shape)

    def _drawn(self, shape: tuple[int, ...]) -> Any:
        values = torch.randn(shape, generator=self._generator)
        sizes = 1 + 3 * torch.rand(
            (*shape[:-1], -(-shape[-1] // GROUP)), generator=self._generator
        )
        sizes = sizes.repeat_interleave(GROUP, -1)[..., : shape[-1]]
        return (values * sizes).to(torch.bfloat16).to(self._device)


class Norm:
    """RMSNorm: the attributes that fused kernels use, and the unfused computation."""

    def __init__(self, width: int, device: str) -> None:
        weight = Draw(("norm", width), "cpu")(width).abs() + 0.5
        self.weight = weight.to(torch.bfloat16).to(device)
        self.variance_epsilon = _EPSILON

    def __call__(self, x: Any, residual: Any = None, *_: Any) -> Any:
        if residual is None:
            return _rms(x, self.weight, _EPSILON)
        total = x + residual
        return _rms(total, self.weight, _EPSILON), total


class Linear:
    """A block-FP8 linear that passes its input to the tree's own consumer.

    Like SGLang's Fp8LinearMethod, it passes a tuple as (q, scale) only. If that method
    itself runs, it calls ``consume``. The GEMM's output goes through ``then``.
    """

    def __init__(self, world: World, consumer: Callable[..., Any], name: str) -> None:
        self._world, self._consumer, self._name = world, consumer, name
        self.weight: Any = None
        self.weight_scale_inv: Any = None
        self.then: Callable[[Any], Any] = _as_it_is

    def sized(self, n: int, k: int) -> Linear:
        """Set weights of (n, k) in fp8, the same for the same size."""
        with unrecorded():
            self._fill(n, k)
        return self

    def _fill(self, n: int, k: int) -> None:
        key = (n, k, self._world.fp8, self._world.device)
        if key not in _weights:
            generator = torch.Generator().manual_seed(n * 65537 + k)
            weight = torch.randn((n, k), generator=generator).to(self._world.fp8)
            blocks = (-(-n // GROUP), -(-k // GROUP))
            scale = torch.rand(blocks, generator=generator) + 0.5
            _weights[key] = weight.to(self._world.device), scale.to(self._world.device)
        self.weight, self.weight_scale_inv = _weights[key]

    def consume(self, input_scale: Any = None, **given: Any) -> Any:
        """Call the tree's consumer and record which projection reads."""
        reads, watch = self._world.reads, self._world.recorder.watch
        reads.projection = self._name
        reads.marked = bool(getattr(input_scale, MARKER, False))
        reads.mark_known = watch is None or watch.knows_mark_on(input_scale)
        return self.then(self._consumer(input_scale=input_scale, **given))

    def __call__(self, x: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        output = self.consume(
            input=x[0] if isinstance(x, tuple) else x,
            weight=self.weight,
            block_size=[GROUP, GROUP],
            weight_scale=self.weight_scale_inv,
            input_scale=x[1] if isinstance(x, tuple) else None,
            bias=None,
        )
        return output, None


class Unquantized:
    """A linear that reads no scale: it has a weight's shape and random outputs."""

    reduce_results = False

    def __init__(self, draw: Draw, n: int, k: int) -> None:
        self.weight = torch.empty((n, k), dtype=torch.bfloat16, device="meta")
        self._draw = draw

    def __call__(self, x: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        rows = x[0] if isinstance(x, tuple) else x
        return self._draw(rows.shape[0], self.weight.shape[0]), None


class Bf16(Unquantized):
    """A linear in bf16, which takes a tensor and no pair."""

    def __init__(self, draw: Draw, n: int, k: int) -> None:
        super().__init__(draw, n, k)
        self.weight = draw(n, k)

    def __call__(self, x: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return torch.nn.functional.linear(x, self.weight), None


_weights: dict[tuple[Any, ...], tuple[Any, Any]] = {}


def gather_for(chain: Chain) -> Gather | None:
    return Gather(chain.over_c10d) if chain.gathers else None


def _rms(x: Any, weight: Any, epsilon: float) -> Any:
    wide = x.float()
    factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * factor * weight.float()).to(x.dtype)


def _as_it_is(output: Any) -> Any:
    return output


def _in_heads(x: Any, pattern: str, d: int) -> Any:
    """Like einops, for the one pattern that the indexers use."""
    if pattern != "l (h d) -> l h d":
        raise ValueError(f"the proof does not support {pattern!r}")
    return x.view(x.shape[0], -1, d)


def _two_norms(*args: Any, **kwargs: Any) -> Any:
    """Both forms of AITER's bf16 ``fused_qk_rmsnorm``: returning and in place."""
    if args:
        q, q_weight, q_epsilon, k, k_weight, k_epsilon = args
        return _rms(q, q_weight, q_epsilon), _rms(k, k_weight, k_epsilon)
    for x, out in (("q", "q_out_quantized"), ("k", "k_out")):
        weight, epsilon = kwargs[f"{x}_weight"], kwargs[f"{x}_epsilon"]
        kwargs[out].copy_(_rms(kwargs[x], weight, epsilon))
    return None


def _bool_env_var(name: str, default: str = "false") -> bool:
    return name == "SGLANG_USE_AITER" or default.lower() in ("true", "1")
