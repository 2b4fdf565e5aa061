"""Several workers on one device, each with a share of the cases.

A case is mostly Python between small kernels, so several processes are faster on a
machine with enough cores. The results do not depend on their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from overlaykit.trees.tree import Tree
from xscale.numeric.cases import Case
from xscale.numeric.client import Job, Progress, completed, worker
from xscale.numeric.results import CaseResult


class Pool:
    """Has the interface of :class:`Worker`; ``size`` is the number of processes."""

    def __init__(self, device: str, size: int) -> None:
        self._workers = [worker(device, number) for number in range(max(size, 1))]
        self._about = [one.about for one in self._workers]

    @property
    def about(self) -> dict[str, str]:
        """The versions that the cases ran with, and AITER's stand-ins."""
        about = self._about[0] | {"processes": str(len(self._about))}
        used = sorted({name for one in self._workers for name in one.stand_ins})
        return about | ({"stand-ins for": " and ".join(used)} if used else {})

    def run(
        self,
        tree: Tree,
        aiter: Tree | Path,
        cases: Iterable[Case],
        pristine: Tree | None,
        progress: Progress,
        also: Iterable[str] = (),
    ) -> tuple[CaseResult, ...]:
        """Like :meth:`Worker.run`; the results are grouped by share."""
        # One job is divided: the number of cases does not depend on that of workers,
        # and no two threads parse sources at once, which can fail in Python before
        # 3.13.
        do = partial(self._do, progress=progress)
        return completed(tree, aiter, cases, pristine, do, also)

    def _do(self, job: Job, progress: Progress) -> tuple[CaseResult, ...]:
        size = len(self._workers)
        done = count(1)

        def share(number: int) -> tuple[CaseResult, ...]:
            return self._workers[number].do(
                replace(job, cases=job.cases[number::size]),
                lambda what, *_: progress(what, next(done), len(job.cases)),
            )

        with ThreadPoolExecutor(size) as pool:
            try:
                shares = list(pool.map(share, range(size)))
            except BaseException:
                # Otherwise the others would run until their shares are done.
                for one in self._workers:
                    one.kill()
                raise
        return tuple(outcome for part in shares for outcome in part)
