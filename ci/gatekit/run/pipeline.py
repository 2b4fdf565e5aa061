"""Builds the gate's stages from a profile, in order.

Commands are the ones a person would type; paths between stages are the store's folders.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gatekit.arms.results import ARMS
from gatekit.records.stage import (
    PLACEHOLDERS,
    Stage,
    Step,
    command_line,
    filled,
    holds_placeholder,
)
from gatekit.report.schema import Subject
from gatekit.run.arm_commands import GATE_PYTHON, Arms
from gatekit.run.model import model_path
from gatekit.run.profile import Profile
from gatekit.run.store import Store
from overlaykit.cli import ROOT
from overlaykit.core.errors import Finding, InputError
from overlaykit.series.manifest import load_manifest

BENCH = "bench"
_KEY = 16
_NO_SECTION = "the profile has no section for this stage"


@dataclass
class Pipeline:
    """All stages, each after the stages it needs, with the key that names its
    folder."""

    profile: Profile
    subject: Subject
    store: Store
    stages: dict[str, Stage] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._refuse_ambiguous_paths()
        self._add(self._apply())
        self._add(self._verify())
        # With containers, kernels run in the image, so the image is built first.
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

    def _refuse_ambiguous_paths(self) -> None:
        """Refuse paths that a command would read as something else. Raises
        InputError."""
        paths = (str(self.store.root), str(ROOT), self._model_path)
        for path in (*paths, *self._question_files):
            what = ""
            if holds_placeholder(path):
                what = "the path contains a profile's placeholder"
            elif self.profile.container and ":" in path:
                what = "the path contains a colon, which ends a path in --volume"
            if what:
                finding = Finding(what, path=path, next_step="rename it")
                raise InputError(f"cannot use the path {path}", (finding,))

    def folder(self, name: str) -> Path:
        """The stage's folder in the run directory."""
        return self.store.folder(name, self.keys[name])

    def _add(self, stage: Stage) -> None:
        parts = [
            stage.name,
            self.subject.series,
            self.subject.code,
            # The stand-in's name may change; whether there is one decides the result.
            f"stands in={bool(stage.stands_in)}",
            *(self.keys[need] for need in stage.needs),
            *(f"{name}={value}" for name, value in sorted(stage.inputs.items())),
            *map(self._without_paths, stage.words),
        ]
        key = hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()[:_KEY]
        self.stages[stage.name], self.keys[stage.name] = stage, key

    def _without_paths(self, word: str) -> str:
        """The word without this machine's paths, which do not change the result."""
        places = [name for name in self._question_files if Path(name).is_file()]
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
        """The patched tree of every base, by the base's name."""
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
                # verify.py trusts the lock, so check first that the lock is current.
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
        """The needs of stages that run kernels. With containers they need the image,
        which has the GPU's PyTorch."""
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
        # The key depends on the commands and names the folder, so use a placeholder.
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
        """The options that record what an arm was made from."""
        series = self.subject.series if arm == "patched" else "none"
        image = self.subject.image
        given = (f"{prefix}series", series)
        return (*given, f"{prefix}image", image) if image else given

    def _recorded(self, arm: str) -> str:
        """The server's command line for the record, the same in every run and stage:
        ports and folders stay placeholders."""
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
    def _question_files(self) -> tuple[str, ...]:
        return (*self._questions, *filter(None, [self._prompt]))

    def _contents(self) -> dict[str, str]:
        """Digests of the user's own question files; named sets are pinned elsewhere."""
        own = [Path(name) for name in self._question_files if Path(name).is_file()]
        return {
            f"questions {number}": hashlib.sha256(path.read_bytes()).hexdigest()
            for number, path in enumerate(own)
        }

    @property
    def _model(self) -> dict[str, str]:
        """The model's digest: the path alone does not say what is there."""
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
                self._arms.fill(filled(word, known), arm) for word in how.client
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
            client = tuple(self._arms.fill(word, "baseline") for word in how.python)
            python = command_line(self._arms.within("baseline", client, {}))
            words = shlex.split(how.options)
            options = command_line(self._arms.fill(word, "baseline") for word in words)
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
