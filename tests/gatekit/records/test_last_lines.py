"""The last line of an error about a document names the file, the field, what was
expected and what was found: earlier lines scroll away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gatekit.gsm8k.questions import load as load_questions
from gatekit.gsm8k.results import load_results
from gatekit.run.profile import load as load_profile
from gatekit.serving.points import points_of
from overlaykit.core.errors import OverlayError
from overlaykit.rebase.folder import active_rebases, rebases_folder
from overlaykit.series.manifest import load_manifest

REQUEST = json.dumps({"name": "one", "onto": 5})
METRICS = {"name": "gsm8k", "model": "m", "gen": {}, "sgl_eval_version": "1",
           "num_examples": "many", "n_repeats": 1, "total_completion_tokens": 1,
           "aggregate": {"score": 1.0}}  # fmt: skip
Case = tuple[str, str, Callable[[Path], object], tuple[str, ...]]
CASES: dict[str, Case] = {
    "manifest": (
        "overlay.toml", "name = 3\n", load_manifest, ("int", "str", "name"),
    ),
    "profile": (
        "p.toml", "about = 3\n",
        lambda folder: load_profile(str(folder / "p.toml")), ("about", "int", "str"),
    ),
    "points": (
        "p.toml", "[bench]\npoints = 3\n",
        lambda folder: points_of([str(folder / "p.toml")]), ("bench.points", "int"),
    ),
    "rebase": (
        "build/rebase/one/request.json", REQUEST,
        lambda folder: list(active_rebases(folder)), ("request.json", "onto"),
    ),
    "question": (
        "q.jsonl", '{"question": "How many?"}\n',
        lambda folder: load_questions([str(folder / "q.jsonl")], folder, {}),
        ("q.jsonl:1", '"answer": expected', "found no such field"),
    ),
    "answer to a question": (
        "q.jsonl", '{"question": "How many?", "answer": "####"}\n',
        lambda folder: load_questions([str(folder / "q.jsonl")], folder, {}),
        ("q.jsonl:1", '"answer": expected a finite number', "found nothing"),
    ),
    "summary of sgl-eval": (
        "metrics.json", json.dumps(METRICS), load_results,
        ("metrics.json is not a valid metrics.json",
         '"num_examples": expected int (the number of questions with an answer), found '
         "str"),
    ),
    "run": (
        "run.json", '{"arm": 7}', load_results,
        ("run.json is not a valid run.json", '"arm": expected str, found int'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_last_line_names_file_field_expected_and_found(
    name: str, tmp_path: Path
) -> None:
    file, text, read, words = CASES[name]
    assert rebases_folder(tmp_path) == tmp_path / "build" / "rebase"
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(OverlayError) as caught:
        read(tmp_path)
    last = caught.value.message.splitlines()[-1]
    for word in words:
        assert word in last, last
