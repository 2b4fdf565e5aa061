"""Trees with a microbenchmark's chain, and programs that run it in a process of their
own: Triton chooses its interpreter when it is first imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT
from support.patience import PATIENCE_S


@dataclass(frozen=True)
class Slim:
    """The files of the releases that are run."""

    sglang: Path
    aiter: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--sglang", str(self.sglang), "--aiter", str(self.aiter))

    def run(
        self, program: str, out: Path, **more: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a program after its fields are filled in."""
        text = program.format(
            ci=str(ROOT / "ci"),
            scripts=str(ROOT / "scripts"),
            sglang=str(self.sglang),
            aiter=str(self.aiter),
            out=str(out),
            **more,
        )
        return run_python("-c", text)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
