"""The quantization formats of checkpoints, as their ``config.json`` states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_QUANTIZATION = "layers/quantization/"
_CONFIGS = {
    "fp8": (f"{_QUANTIZATION}fp8", "Fp8Config"),
    "mxfp8": (f"{_QUANTIZATION}fp8", "Fp8Config"),
    "w8a8_fp8": (f"{_QUANTIZATION}w8a8_fp8", "W8A8Fp8Config"),
    "compressed-tensors": (
        f"{_QUANTIZATION}compressed_tensors/compressed_tensors",
        "CompressedTensorsConfig",
    ),
    "quark": (f"{_QUANTIZATION}quark/quark", "QuarkConfig"),
}
"""The class that reads a ``quantization_config``, by its ``quant_method``."""


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
    def reader(self) -> tuple[str, str] | None:
        """The module below sglang/srt and the class that reads it; None if it is not
        known here."""
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
