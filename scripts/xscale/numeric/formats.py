"""The quantization formats of checkpoints, as their ``config.json`` states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_QUANTIZATION = "layers/quantization/"
_CONFIGS = {
    "fp8": (f"{_QUANTIZATION}fp8", "Fp8Config", ""),
    "mxfp8": (f"{_QUANTIZATION}fp8", "Fp8Config", ""),
    "w8a8_fp8": (f"{_QUANTIZATION}w8a8_fp8", "W8A8Fp8Config", ""),
    "compressed-tensors": (
        f"{_QUANTIZATION}compressed_tensors/compressed_tensors",
        "CompressedTensorsConfig",
        "compressed_tensors",
    ),
    "quark": (f"{_QUANTIZATION}quark/quark", "QuarkConfig", ""),
}
"""The module and the class that reads a ``quantization_config``, by its
``quant_method``, and a package that the class needs."""


@dataclass(frozen=True)
class Format:
    """A ``quantization_config``. ``text`` is JSON, so that a format is hashable."""

    name: str
    text: str

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> Format:
        return cls(name, json.dumps(config, sort_keys=True))

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.text)
        return config

    @property
    def reader(self) -> tuple[str, str, str] | None:
        """The module below sglang/srt and the class that reads it, and a package that
        it needs or ''; None if the method is not known here."""
        return _CONFIGS.get(str(self.config.get("quant_method", "")).lower())

    def __str__(self) -> str:
        return self.name


NATIVE_BLOCK_FP8 = Format.of(
    "native block FP8",
    {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    },
)
"""The format of DeepSeek-V3, GLM-5.1 and their successors."""

PER_CHANNEL_FP8 = Format.of("per-channel FP8", {"quant_method": "w8a8_fp8"})
MXFP8 = Format.of(
    "MXFP8",
    {
        "quant_method": "mxfp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [1, 32],
    },
)


def _compressed(strategy: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 8,
                    "type": "float",
                    "symmetric": True,
                    "dynamic": False,
                    "strategy": strategy,
                    **more,
                },
                "input_activations": {
                    "num_bits": 8,
                    "type": "float",
                    "symmetric": True,
                    "dynamic": True,
                    "strategy": "group" if more else "token",
                    **({"group_size": 128} if more else {}),
                },
            }
        },
    }


COMPRESSED_BLOCK = Format.of(
    "compressed-tensors, block FP8",
    _compressed("block", {"block_structure": [128, 128]}),
)
COMPRESSED_CHANNEL = Format.of(
    "compressed-tensors, per-channel FP8", _compressed("channel", {})
)


def _quark(weight: dict[str, Any]) -> dict[str, Any]:
    dynamic = {
        "dtype": "fp8_e4m3",
        "is_dynamic": True,
        "qscheme": "per_channel",
        "ch_axis": 1,
        "symmetric": True,
    }
    return {
        "quant_method": "quark",
        "exclude": ["lm_head"],
        "export": {"kv_cache_group": [], "pack_method": "reorder"},
        "layer_quant_config": {},
        "layer_type_quant_config": {},
        "global_quant_config": {
            "weight": {"dtype": "fp8_e4m3", "symmetric": True, **weight},
            "input_tensors": dynamic,
            "output_tensors": None,
            "bias": None,
        },
    }


QUARK_CHANNEL = Format.of(
    "Quark, per-channel FP8",
    _quark({"is_dynamic": False, "qscheme": "per_channel", "ch_axis": 0}),
)

FORMATS = (
    NATIVE_BLOCK_FP8,
    PER_CHANNEL_FP8,
    COMPRESSED_BLOCK,
    COMPRESSED_CHANNEL,
    QUARK_CHANNEL,
    MXFP8,
)
"""The formats that a release is asked about without a checkpoint at hand."""


def format_of(quantization: Mapping[str, Any] | None) -> Format | None:
    """The format of a checkpoint's ``quantization_config``; None if it has none.

    A format that is listed here has its name; others have that of their method.
    """
    if not quantization:
        return None
    given = Format.of("", quantization)
    for known in FORMATS:
        if _core(known.config) == _core(given.config):
            return Format(known.name, given.text)
    method = quantization.get("quant_method", "unknown method")
    return Format(f"{method} of this checkpoint", given.text)


def _core(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What distinguishes formats that are read alike."""
    size = config.get("weight_block_size")
    groups = json.dumps(config.get("config_groups"), sort_keys=True)
    return str(config.get("quant_method")).lower(), str(size), groups
