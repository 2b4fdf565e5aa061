"""The gate's stages, in order, from a profile: one place says what runs and on what.

Commands are those that a person would type; paths between stages are where the store
keeps them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gatekit.records.stage import (
    PLACEHOLDERS,
    Stage,
    Step,
    filled,
    holds_placeholder,
    joined,
)
from gatekit.report.schema import Subject
from gatekit.run.arms import ARMS, GATE_PYTHON, Arms
from gatekit.run.model import model_path
from gatekit.run.profile import Profile
from gatekit.run.store import Store
from overlaykit.cli import ROOT
from overlaykit.core.errors import Finding, InputError
from overlaykit.series.manifest import load_manifest

BENCH = "bench"
_KEY = 16
_NO_SECTION = "the profile has no section for it"


@dataclass
class Pipeline:
    """Builds every stage with its key, which names its folder, in order of need."""

    profile: Profile
    subject: Subject
    store: Store
    stages: dict[str, Stage] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._refuse_places()
        self._add(self._apply())
        self._add(self._verify())
        # In containers kernels run in the image, which is therefore made first.
        if self.profile.container:
            self._add(self._rebuild())
            self._add(self._numeric())
        else:
            self._add(self._numeric())
            self._add(self._rebuild())
        self._add(self._chain())
        self._add(self._gsm8k())
        self._add(self._traces())
        for stage in self._points():
            self._add(stage)
        self._add(self._bench())

    def _refuse_places(self) -> None:
        """Names that would be read as something else. Raises InputError."""
        places = (str(self.store.root), str(ROOT), self._model_path)
        for place in (*places, *self._asked_files):
            what, step = "", "give it another name"
            if holds_placeholder(place):
                what = "its name holds what stands for something else in a profile"
            elif self.profile.container and ":" in place:
                what = "an engine's --volume ends a path at a colon"
            if what:
                finding = Finding(what, path=place, next_step=step)
                raise InputError(f"cannot work with {place}", (finding,))

    def folder(self, name: str) -> Path:
        """Where a stage keeps what it makes."""
        return self.store.folder(name, self.keys[name])

    def _add(self, stage: Stage) -> None:
        parts = [
            stage.name,
            self.subject.series,
            self.subject.code,
            # What it ran on may be named otherwise; whether it was the real thing, not.
            f"stands in={bool(stage.stands_in)}",
            *(self.keys[need] for need in stage.needs),
            *(f"{name}={value}" for name, value in sorted(stage.inputs.items())),
            *map(self._anywhere, stage.words),
        ]
        key = hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()[:_KEY]
        self.stages[stage.name], self.keys[stage.name] = stage, key

    def _anywhere(self, word: str) -> str:
        """Where things lie on this machine is no part of what is run."""
        places = [name for name in self._asked_files if Path(name).is_file()]
        if self._model["model"]:
            places.append(self._model_path)
        for here in (*places, str(self.store.root), str(ROOT), GATE_PYTHON):
            word = word.replace(here, "")
        return word

    def _left_out(self, name: str, title: str, needs: tuple[str, ...]) -> Stage:
        section = name.partition(":")[0]
        why = self.profile.not_run.get(section, _NO_SECTION)
        return Stage(name, title, needs, why_not=why)

    # --- the trees ------------------------------------------------------------------

    @cached_property
    def _trees(self) -> dict[str, Path]:
        """Every base's tree with the series, by the base's name."""
        folder = self.folder("apply")
        return {name: folder / name for name in load_manifest(ROOT).targets}

    def _apply(self) -> Stage:
        names = tuple(load_manifest(ROOT).targets)
        paths = tuple(f"{{folder}}/{name}" for name in names)
        return Stage(
            "apply",
            "the series on the pinned releases",
            (),
            (
                Step("fetch", _verb("scripts/fetch.py", "--out", "{folder}")),
                Step("apply", _verb("scripts/apply.py", *paths)),
            ),
            self.subject.packages,
        )

    def _verify(self) -> Stage:
        trees = map(str, self._trees.values())
        return Stage(
            "verify",
            "lock, scopes and census",
            ("apply",),
            (
                # verify.py trusts the lock: first, that it is what the series makes.
                Step("lock", _verb("scripts/lock.py", "--check")),
                Step("verify", _verb("scripts/verify.py", *trees)),
            ),
        )

    def _numeric(self) -> Stage:
        title, needs = "every scale by its bytes", self._kernels_need
        if (how := self.profile.numeric) is None:
            return self._left_out("numeric", title, needs)
        options = ["--numeric", "--device", how.device, "--jobs", str(how.jobs)]
        if how.full:
            options.append("--full")
        trees = map(str, self._trees.values())
        command = self._with_kernels(_verb("scripts/verify.py", *trees, *options))
        by = "Triton's interpreter on a CPU" if how.device == "cpu" else ""
        return Stage("numeric", title, needs, (Step("numeric", command),), stands_in=by)

    def _chain(self) -> Stage:
        title, needs = "the attention chain, run and counted", self._kernels_need
        if (how := self.profile.chain) is None:
            return self._left_out("chain", title, needs)
        amount = ("--rounds", str(how.rounds), "--layers", str(how.layers))
        options = ("--dry-run",) if how.interpreted else amount
        trees = (
            "--sglang",
            str(self._trees["sglang"]),
            "--aiter",
            str(self._trees["aiter"]),
        )
        command = self._with_kernels(
            _verb("ci/microbench.py", *trees, "--out", "{folder}", *options)
        )
        by = "Triton's interpreter on a CPU: no times" if how.interpreted else ""
        return Stage("chain", title, needs, (Step("chain", command),), stands_in=by)

    @property
    def _kernels_need(self) -> tuple[str, ...]:
        """What stages that run kernels need: an image's PyTorch is the GPU's."""
        return ("verify", "rebuild") if self.profile.container else ("verify",)

    def _with_kernels(self, command: tuple[str, ...]) -> tuple[str, ...]:
        return self._arms.verb(command) if self.profile.container else command

    # --- the arms ---------------------------------------------------------------------

    @cached_property
    def _arms(self) -> Arms:
        installed = self.folder("rebuild")
        return Arms(self.profile, self.subject, installed, self._model_path)

    @cached_property
    def _model_path(self) -> str:
        return model_path(self.profile.model, must_exist=False)

    def _rebuild(self) -> Stage:
        title, needs = "both arms, installed", ("verify",)
        if self.profile.rebuild is None:
            return self._left_out("rebuild", title, needs)
        # Its own folder's name is not known before its key, which is of its commands.
        here = Arms(self.profile, self.subject, Path("{folder}"), "")
        inputs = {**self.subject.packages, "image": self.subject.image}
        return Stage("rebuild", title, needs, here.rebuilds(), inputs)

    _SERVED = ("numeric", "rebuild")

    def _gsm8k(self) -> Stage:
        title = "GSM8K, question by question"
        if (how := self.profile.gsm8k) is None:
            return self._left_out("gsm8k", title, self._SERVED)
        prompt = ("--prompt", self._prompt) if self._prompt else ()
        steps, runs = [], {arm: list[str]() for arm in ARMS}
        for number, letter in enumerate(how.order, 1):
            arm = ARMS["AB".index(letter)]
            out = f"{{folder}}/run-{number}-{arm}"
            runs[arm].append(out)
            command = _verb(
                "ci/gsm8k.py", "run", "--arm", arm,
                "--url", "http://127.0.0.1:{port}/v1", "--out", out,
                "--questions", *self._questions, "--first", str(how.questions),
                *prompt,
                "--threads", str(how.parallelism),
                "--max-tokens", str(how.max_tokens),
                *self._origin(arm), "--server-command", self._recorded(arm),
            )  # fmt: skip
            steps.append(self._arms.step(f"run-{number}-{arm}", command, arm))
        margin = () if how.margin is None else ("--margin", str(how.margin))
        arms = [word for arm in ARMS for word in (f"--{arm}", *runs[arm])]
        compare = _verb("ci/gsm8k.py", "compare", *arms, *margin)
        return Stage(
            "gsm8k",
            title,
            self._SERVED,
            (*steps, Step("compare", compare)),
            self._model | self._contents(),
            stands_in=self._arms.server.stands_in,
            port=self._arms.server.port,
        )

    def _origin(self, arm: str, prefix: str = "--") -> tuple[str, ...]:
        """What an arm's records say that they are of."""
        series = self.subject.series if arm == "patched" else "none"
        image = self.subject.image
        given = (f"{prefix}series", series)
        return (*given, f"{prefix}image", image) if image else given

    def _recorded(self, arm: str) -> str:
        """What serves it, for the record: the same in every run, whatever port was
        free and whichever stage's it is."""
        known = {name: name.upper() for name in PLACEHOLDERS}
        return filled(self._arms.serve(arm).line, known)

    @property
    def _questions(self) -> tuple[str, ...]:
        files = self.profile.gsm8k.files if self.profile.gsm8k else ()
        return tuple(filled(name, {"root": str(ROOT)}) for name in files)

    @property
    def _prompt(self) -> str:
        how = self.profile.gsm8k
        return filled(how.prompt, {"root": str(ROOT)}) if how else ""

    @property
    def _asked_files(self) -> tuple[str, ...]:
        return (*self._questions, *filter(None, [self._prompt]))

    def _contents(self) -> dict[str, str]:
        """Files of one's own by their contents; named sets are pinned by the runner."""
        own = [Path(name) for name in self._asked_files if Path(name).is_file()]
        return {
            f"questions {number}": hashlib.sha256(path.read_bytes()).hexdigest()
            for number, path in enumerate(own)
        }

    @property
    def _model(self) -> dict[str, str]:
        """A model's path may stay where what it holds does not."""
        model = self.profile.model
        return {"model": model.sha256 if model else ""}

    def _traces(self) -> Stage:
        title = "copies and time in each layer's attention"
        if (how := self.profile.traces) is None:
            return self._left_out("traces", title, self._SERVED)
        steps = []
        for arm in ARMS:
            known = {"traces": f"{{folder}}/{arm}"}
            client = tuple(
                self._arms.told(filled(word, known), arm) for word in how.client
            )
            command = self._arms.within(arm, client, {})
            steps.append(self._arms.step(f"profile-{arm}", command, arm, how))
        layers = ("--expect-layers", str(how.layers))
        before, after = (f"{{folder}}/{arm}" for arm in ARMS)
        for name, words in (
            ("baseline", (before, "--expect-copies", str(how.copies_before))),
            ("compare", (after, "--baseline", before,
                         "--expect-copies", str(how.copies_after),
                         "--html", "{folder}/traces.html")),
        ):  # fmt: skip
            steps.append(Step(name, _verb("ci/trace_check.py", *words, *layers)))
        return Stage(
            "traces",
            title,
            self._SERVED,
            tuple(steps),
            self._model,
            stands_in=self._arms.server.stands_in,
            port=self._arms.server.port,
        )

    def _points(self) -> Iterator[Stage]:
        how = self.profile.bench
        for point in how.served if how else ():
            assert how is not None
            arms = []
            for arm in ARMS:
                url, start = "http://127.0.0.1:{port}", self._arms.serve(arm).line
                arms += [f"--{arm}", url, f"--{arm}-start", start]
                arms += [f"--{arm}-command", self._recorded(arm)]
                arms += self._origin(arm, f"--{arm}-")
            client = tuple(self._arms.told(word, "baseline") for word in how.python)
            python = joined(self._arms.within("baseline", client, {}))
            words = shlex.split(how.options)
            options = joined(self._arms.told(word, "baseline") for word in words)
            command = _verb(
                "ci/bench.py", "run", *arms, "--points", str(point),
                "--rounds", str(how.rounds), "--python", python,
                f"--client-options={options}",
                "--start-deadline", str(self._arms.server.deadline_s),
                "--out", "{folder}",
            )  # fmt: skip
            yield Stage(
                f"{BENCH}:{point}",
                f"the serving benchmark at {point}",
                self._SERVED,
                (Step("run", command, remove=self._arms.remove(*ARMS)),),
                self._model,
                stands_in=self._arms.server.stands_in,
                port=self._arms.server.port,
            )

    def _bench(self) -> Stage:
        title = "throughput and latency, point by point"
        if (how := self.profile.bench) is None:
            return self._left_out(BENCH, title, self._SERVED)
        names = tuple(f"{BENCH}:{point}" for point in how.served)
        command = _verb(
            "ci/bench.py", "compare", *(str(self.folder(name)) for name in names),
            "--points", *map(str, how.served), "--margin", str(how.margin),
        )  # fmt: skip
        by = self._arms.server.stands_in
        return Stage(BENCH, title, names, (Step("compare", command),), stands_in=by)


def _verb(file: str, *words: str) -> tuple[str, ...]:
    return (GATE_PYTHON, file, *words, "--json")
