"""``ci/bench.py`` as its users run it, with the real ``sglang.bench_serving`` from a
released wheel.

Its files come from the wheel unchanged. Stand-ins replace what they import from the
rest of SGLang (a URL helper, a constant) and transformers (a tokenizer): the benchmark
sends token ids, so a tokenizer only counts the words in the response.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.ci_verb import Reported, reported
from support.serving_stand_in import StandIn, serving

_VERB = Path(__file__).resolve().parents[2] / "ci" / "bench.py"
SMALL = ("--points", "24/8/1", "16/8/2")
_NEEDED = ("aiohttp", "numpy", "requests", "scipy", "tqdm")

_STAND_INS = {
    "sglang/__init__.py": "",
    "sglang/srt/__init__.py": "",
    "sglang/srt/utils/__init__.py": "def kill_process_tree(*_): pass\n",
    "sglang/srt/utils/network.py": (
        "def resolve_base_url(base_url, host, port):\n    return base_url\n"
        "resolve_host_port = NetworkAddress = resolve_base_url\n"
    ),
    "sglang/srt/disaggregation/__init__.py": "",
    "sglang/srt/disaggregation/utils.py": "FAKE_BOOTSTRAP_HOST = '0.0.0.0'\n",
    # For image data sets, which these tests do not use.
    "datasets.py": "load_dataset = None\n",
    "pybase64.py": "",
    "PIL/__init__.py": "",
    "PIL/Image.py": "Image = None\n",
    "transformers.py": (
        "class PreTrainedTokenizerBase:\n"
        "    vocab_size = 1000\n"
        "    init_kwargs = {'chat_template': ''}\n"
        "    def num_special_tokens_to_add(self): return 0\n"
        "    def encode(self, text, **_): return text.split()\n"
        "    def decode(self, ids): return ' '.join(map(str, ids))\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, *_, **__): return cls()\n"
        "AutoTokenizer = PreTrainedTokenizer = PreTrainedTokenizerBase\n"
        "AutoProcessor = PreTrainedTokenizerFast = PreTrainedTokenizerBase\n"
    ),
}


def skip_without_packages() -> None:
    """Skip the test where the client or its comparison cannot run."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        pytest.skip(f"bench_serving and its comparison need {', '.join(_NEEDED)}")


def lay_out(wheel: Path, root: Path) -> Path:
    """Make a folder for PYTHONPATH that has the wheel's ``sglang.bench_serving``."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and (
                name == "sglang/bench_serving.py"
                or name.startswith("sglang/benchmark/")
            ):
                archive.extract(name, root)
    for name, text in _STAND_INS.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return root


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(_VERB), *map(str, arguments)]


def environment(sglang: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(sglang)}


def bench(sglang: Path, *arguments: str | Path) -> Reported:
    """Run it: exit code, report and standard error."""
    return reported(command(*arguments, "--json"), environment(sglang))


@contextmanager
def both(**settings: Any) -> Iterator[tuple[StandIn, StandIn]]:
    """Two servers."""
    with ExitStack() as stack:
        yield (
            stack.enter_context(serving(StandIn("a-model", **settings))),
            stack.enter_context(serving(StandIn("a-model", **settings))),
        )


def arms(baseline: StandIn, patched: StandIn) -> list[str]:
    return ["--baseline", baseline.url, "--patched", patched.url]
