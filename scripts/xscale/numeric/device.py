"""The environment of a process that runs kernels on one device."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from overlaykit.core.python import module_environment

READERS = (
    "AITER", "AMD", "ATEN", "C10", "CUBLAS", "CUDA", "CUDNN", "GPU", "HF_", "HIP",
    "HSA_", "KMP", "LD_", "LLVM", "MIOPEN", "MKL", "NCCL", "NPY", "NUMPY", "NVIDIA",
    "OMP", "OPENBLAS", "PYTHON", "PYTORCH", "RCCL", "ROCM", "ROCR", "SGL", "TORCH",
    "TRANSFORMERS", "TRITON", "XLA",
)  # fmt: skip
"""How the names of variables begin that SGLang, AITER and their packages read."""
_PLACES = {"HOME", "LOGNAME", "PATH", "TMPDIR", "USER"}


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


def read_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the packages read."""
    return {name: environ[name] for name in environ if name.startswith(READERS)}


def sealed(environ: Mapping[str, str]) -> dict[str, str]:
    """The same environment without variables that are nobody's: what a worker finds
    does not depend on them."""
    kept = read_variables(environ)
    kept |= {name: environ[name] for name in _PLACES if name in environ}
    return kept | {"LC_ALL": "C.UTF-8"}
