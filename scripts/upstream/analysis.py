"""The facts of many versions, each computed once and kept at once.

Two processes work from both ends of the list. So each goes through neighbours, which
have almost all of their files in common, and both end at the same time. What is found
is saved before the next result is awaited: an interrupt loses only what is being
computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from overlaykit.series.carried import Carried
from overlaykit.sources.packages import Progress
from upstream import workers
from upstream.cache import FactsCache
from upstream.facts import Facts
from upstream.sources import Source, base_of, compute_facts, kernels


class Stopped(KeyboardInterrupt):
    """The user interrupted the analysis; ``found`` are the facts by the identity of
    their version."""

    def __init__(self, found: Mapping[str, Facts]) -> None:
        super().__init__()
        self.found = found


class Analysis:
    """Computes facts for one target; its processes stay until the end of the block."""

    def __init__(self, root: Path, carried: Carried, progress: Progress) -> None:
        self._root, self._carried, self._progress = root, carried, progress
        self._cache = FactsCache(root, with_kernels=kernels(root) is not None)
        self._stack = ExitStack()
        self._lanes: list[Executor] = []

    def facts(self, sources: Sequence[Source]) -> list[Facts]:
        """The facts of each source, in order. Raises Stopped if it is interrupted."""
        found: dict[str, Facts] = {}
        try:
            self._load(sources, found)
            todo = {
                s.version.identity: s
                for s in sources
                if s.version.identity not in found
            }
            if todo:
                self._compute(list(todo.values()), found)
        except KeyboardInterrupt as error:
            raise Stopped(found) from error
        return [found[source.version.identity] for source in sources]

    def without_running(self, source: Source) -> Facts:
        """The facts of one source; its code need not have been run."""
        target, identity = self._carried.name, source.version.identity
        facts = self._cache.load(target, identity, run=False)
        if facts is None:
            facts = compute_facts(self._root, target, source, run=False)
            self._cache.save(target, identity, facts, run=False)
        return facts

    def _load(self, sources: Sequence[Source], found: dict[str, Facts]) -> None:
        for identity in dict.fromkeys(s.version.identity for s in sources):
            facts = self._cache.load(self._carried.name, identity)
            if facts is not None:
                found[identity] = facts

    def _compute(self, todo: Sequence[Source], found: dict[str, Facts]) -> None:
        """Compute what is not cached; a single version in this process."""
        before = len(found)

        def keep(source: Source, facts: Facts) -> None:
            identity = source.version.identity
            found[identity] = facts
            self._cache.save(self._carried.name, identity, facts)
            self._progress("versions", len(found), before + len(todo))

        if len(todo) < workers.PROCESSES and not self._lanes:
            for source in todo:
                keep(source, compute_facts(self._root, self._carried.name, source))
            return
        self._start(todo[0].place)
        left, running = deque(todo), dict[Future[Facts], tuple[int, Source]]()
        try:
            for lane in range(len(self._lanes)):
                self._submit(lane, left, running)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    lane, source = running.pop(future)
                    self._submit(lane, left, running)
                    keep(source, future.result())
        except BaseException:
            for source, facts in _finished(running):
                keep(source, facts)
            raise

    def _start(self, place: Path) -> None:
        if self._lanes:
            return
        # Fetch the base here, so that the two processes do not both fetch it (or fail).
        with base_of(self._root, self._carried, place):
            pass
        self._lanes = [
            self._stack.enter_context(workers.pool(1)) for _ in range(workers.PROCESSES)
        ]

    def _submit(
        self,
        lane: int,
        left: deque[Source],
        running: dict[Future[Facts], tuple[int, Source]],
    ) -> None:
        """Give a process the next version from its end of the list."""
        if left:
            source = left.pop() if lane % 2 else left.popleft()
            future = self._lanes[lane].submit(
                workers.job, compute_facts, self._root, self._carried.name, source
            )
            running[future] = lane, source

    def __enter__(self) -> Analysis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def _finished(
    running: Mapping[Future[Facts], tuple[int, Source]],
) -> Iterator[tuple[Source, Facts]]:
    """What the processes were computing, unless it fails or is interrupted too."""
    for future, (_, source) in running.items():
        with suppress(Exception, KeyboardInterrupt):
            yield source, future.result()


def all_facts(
    root: Path, carried: Carried, sources: Sequence[Source], progress: Progress
) -> list[Facts]:
    """The facts of each source, in order."""
    with Analysis(root, carried, progress) as analysis:
        return analysis.facts(sources)
