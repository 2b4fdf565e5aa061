"""Send cases to a worker process with PyTorch and Triton, and receive the results.

Triton chooses between its interpreter and a GPU when it is first imported, and a tree's
code may change the process it runs in. So each device has its own process.
"""

from __future__ import annotations

import atexit
import pickle
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from overlaykit.core.errors import EnvironmentFailure, Finding, not_started
from overlaykit.core.python import module_command
from overlaykit.trees.tree import DirectoryTree, Tree
from xscale.numeric.cases import Case, Switch, Variant
from xscale.numeric.device import sealed, worker_environment
from xscale.numeric.results import CaseResult
from xscale.numeric.server import STAND_INS
from xscale.numeric.sources import Sources, aiter_sources, module_of, sglang_sources

Progress = Callable[[str, int, int], None]

_TAIL = 2000


@dataclass(frozen=True)
class Job:
    """A job for a worker: sources, and the cases to judge on them."""

    tree: Sources
    aiter: Sources
    pristine: Sources | None
    cases: tuple[Case, ...]


def job_of(
    tree: Tree,
    aiter: Tree | Path,
    cases: Iterable[Case],
    pristine: Tree | None,
    also: Iterable[str] = (),
) -> Job:
    """Find the sources in the trees, and the cases that apply to them.

    ``also`` lists further modules of SGLang to run.
    """
    kernels = DirectoryTree(aiter) if isinstance(aiter, Path) else aiter
    sources = sglang_sources(tree, also)
    base = sglang_sources(pristine, also) if pristine is not None else None
    return Job(sources, aiter_sources(kernels), base, applicable(cases, sources))


def completed(
    tree: Tree,
    aiter: Tree | Path,
    cases: Iterable[Case],
    pristine: Tree | None,
    do: Callable[[Job], tuple[CaseResult, ...]],
    also: Iterable[str] = (),
) -> tuple[CaseResult, ...]:
    """Run the cases. If a scale was passed to a stub of one of the tree's modules, run
    them again with that module. ``also`` lists modules to run from the start."""
    also = set(also)
    job = job_of(tree, aiter, cases, pristine, also)
    outcomes = do(job)
    # A tree without the switch promises nothing that this could show.
    while job.tree.has_switch and (more := _stubbed(tree, outcomes) - also):
        also |= more
        again = [outcome.case for outcome in outcomes if outcome.reached_stubs]
        kept = tuple(outcome for outcome in outcomes if not outcome.reached_stubs)
        outcomes = kept + do(job_of(tree, aiter, again, pristine, also))
    return outcomes


def _stubbed(tree: Tree, outcomes: Iterable[CaseResult]) -> set[str]:
    """The tree's modules whose stubs received a scale."""
    names = {name for outcome in outcomes for name in outcome.reached_stubs}
    return {module for name in names if (module := module_of(tree, name)) is not None}


class Worker:
    """A process that runs cases on one device, "cpu" (interpreted) or "cuda".

    Its first answer raises EnvironmentFailure if PyTorch, Triton or the device is
    missing.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        environ = worker_environment(device) | {"OMP_NUM_THREADS": "1"}
        # Open while the process runs: if it dies, the end of its log is reported.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                module_command("xscale.numeric.server", device),
                # Answers of the interpreter are kept.
                env=sealed(environ) if device == "cpu" else environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        except OSError as error:
            self._log.close()
            raise not_started("Python", error) from error

        self.stand_ins: set[str] = set()
        """What the last job's AITER needed."""

    @cached_property
    def about(self) -> dict[str, str]:
        """The versions that it runs with; read after the start, so that several start
        at once.

        Raises EnvironmentFailure as described above.
        """
        about: dict[str, str] = self._receive()
        return about

    def run(
        self,
        tree: Tree,
        aiter: Tree | Path,
        cases: Iterable[Case],
        pristine: Tree | None = None,
        progress: Progress = lambda *_: None,
    ) -> tuple[CaseResult, ...]:
        """Judge the cases on this tree; see :func:`run`."""
        do = partial(self.do, progress=progress)
        return completed(tree, aiter, cases, pristine, do)

    def do(self, job: Job, progress: Progress) -> tuple[CaseResult, ...]:
        """Judge a job's cases, in order."""
        assert self.about
        self.stand_ins.clear()
        self._send((job.tree, job.aiter, job.pristine, job.cases))
        outcomes: list[CaseResult] = []
        try:
            for number in range(1, len(job.cases) + 1):
                outcomes.append(self._receive())
                progress("numeric", number, len(job.cases))
        except BaseException:
            # Its remaining answers must not reach a later run.
            self.kill()
            raise
        return tuple(outcomes)

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        kind: str = STAND_INS
        value: Any = ()
        while kind == STAND_INS:
            self.stand_ins.update(value)
            try:
                kind, value = pickle.load(self._process.stdout)
            except (EOFError, pickle.UnpicklingError) as error:
                raise self._died() from error
        if kind == "failed":
            self.close()
            what, found, next_step = value
            finding = Finding(what, found=found, next_step=next_step)
            raise EnvironmentFailure("the numeric proof cannot run", (finding,))
        return value

    def _died(self) -> EnvironmentFailure:
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read()[-_TAIL:].decode(errors="replace").strip()
        finding = Finding(
            f"the worker process exited with {code}", found=log or "no message"
        )
        return EnvironmentFailure("the numeric proof cannot run", (finding,))

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def applicable(cases: Iterable[Case], sources: Sources) -> tuple[Case, ...]:
    """The cases that differ on this tree, each once.

    A tree without the switch has one behaviour and no check mode. For a tree that never
    requests a transposed scale, all variants of AITER are the same. A series that mends
    upstream's own producers needs an AITER with their parameters, as upstream does.
    """
    if not sources.has_switch:
        cases = (case for case in cases if not case.tests_check_mode)
        cases = (replace(case, switch=Switch.ON) for case in cases)
    if sources.mends_upstream:
        cases = (case for case in cases if case.variant is not Variant.NO_FLATTEN)
    if not sources.adopts:
        cases = (replace(case, variant=Variant.INSTALLED) for case in cases)
    return tuple(dict.fromkeys(cases))


_workers: dict[tuple[str, int], Worker] = {}


def worker(device: str = "cpu", number: int = 0) -> Worker:
    """A worker of this process; it is kept for the next call."""
    key = device, number
    if key not in _workers or not _workers[key].alive:
        _workers[key] = Worker(device)
        atexit.register(_workers[key].close)
    return _workers[key]


def run(
    tree: Tree,
    aiter: Tree | Path,
    cases: Iterable[Case],
    device: str = "cpu",
    pristine: Tree | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[CaseResult, ...]:
    """Judge the cases on a SGLang tree with an AITER tree (or directory).

    ``pristine`` is the same release without the series. If it is given, fp8 tensors,
    scales, GEMM outputs and returned values must be bit-identical to it. Cases that do
    not differ on this tree are run once. The worker process is kept for the next call.

    Raises InputError if a function cannot be found, and EnvironmentFailure if PyTorch,
    Triton, the device or a loadable AITER is missing.
    """
    return worker(device).run(tree, aiter, cases, pristine, progress)
