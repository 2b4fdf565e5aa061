"""The environment of a process that runs kernels on one device."""

from __future__ import annotations

from collections.abc import MutableMapping

from overlaykit.core.python import module_environment


def set_device(environ: MutableMapping[str, str], device: str) -> None:
    """Run Triton's kernels interpreted on "cpu", compiled elsewhere. Triton reads this
    when it is first imported."""
    environ.pop("TRITON_INTERPRET", None)
    if device == "cpu":
        environ["TRITON_INTERPRET"] = "1"


def worker_environment(device: str) -> dict[str, str]:
    environ = module_environment()
    set_device(environ, device)
    return environ
