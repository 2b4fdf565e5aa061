"""The tree's own linears: their weights do not depend on the device they are for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install --group kernels")
pytest.importorskip("triton", reason="pip install --group kernels")


def test_weights_are_drawn_on_the_cpu_whatever_the_default_device() -> None:
    """On a GPU, linears are made with it as the default device."""
    from xscale.numeric.linears import fill

    for name in ("weight", "weight_scale_inv"):
        values = torch.zeros(3, 128)
        with torch.device("meta"):
            fill("q_b", name, values)
        assert values.device.type == "cpu" and values.any()
