#!/usr/bin/env python3
"""A stand-in for docker that carries out the recipe's instructions in a folder.

``$ENGINE_ROOT`` contains the base image's files and one folder for each built image;
absolute paths in the recipe are resolved below those. The recipe, its scripts and the
trees are real. It supports the recipe's instructions and refuses any other.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(os.environ["ENGINE_ROOT"])
BASE = "sha256:" + "5" * 64


def main(words: list[str]) -> int:
    with (ROOT / "calls.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(words) + "\n")
    if words[:2] == ["image", "inspect"]:
        return _inspect(words[2])
    if words[0] == "pull":
        (ROOT / "pulled").touch()
        return 0
    return _build(words[1:])


def _inspect(name: str) -> int:
    built = ROOT / name / "labels.json"
    if built.exists():
        print(json.dumps([{"Id": f"sha256:{name}", "RepoDigests": []}]))
        return 0
    if name.startswith("base:") and (ROOT / "pulled").exists():
        print(json.dumps([{"Id": BASE, "RepoDigests": [f"base@{BASE}"]}]))
        return 0
    print(f"no such image: {name}", file=sys.stderr)
    return 1


def _build(words: list[str]) -> int:
    given = dict(w.split("=", 1) for w in _values(words, "--build-arg"))
    [recipe], [target], [tag] = (
        _values(words, option) for option in ("--file", "--target", "--tag")
    )
    stages = _stages(Path(recipe).read_text(encoding="utf-8"))
    chain = [target]
    while (parent := stages[chain[0]][0].removeprefix("${IMAGE}")) in stages:
        chain.insert(0, parent)
    root = ROOT / tag
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ROOT / "base", root, symlinks=True)
    labels: dict[str, str] = {"base": given["IMAGE"]}
    for name in chain:
        # An ARG counts in the stage that declares it.
        known: dict[str, str] = {}
        for keyword, rest in stages[name][1]:
            if keyword == "ARG":
                key, _, default = rest.partition("=")
                known[key] = given.get(key, _below(root, default))
            elif keyword == "COPY":
                _copy(Path(words[-1]), shlex.split(_filled(rest, known)))
            elif keyword == "RUN":
                code = _run(rest, root, known)
                if code:
                    shutil.rmtree(root)
                    return code
            elif keyword == "LABEL":
                pairs = shlex.split(_filled(rest, known))
                labels |= dict(pair.split("=", 1) for pair in pairs)
            else:
                raise NotImplementedError(keyword)
    (root / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return 0


def _values(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def _stages(text: str) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for line in _lines(text):
        keyword, rest = line.split(None, 1)
        if keyword == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = (parent, [])
        elif name:
            found[name][1].append((keyword, rest))
    return found


def _lines(text: str) -> Iterator[str]:
    whole = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    yield from (line.strip() for line in whole.splitlines() if line.strip())


def _below(root: Path, value: str) -> str:
    return f"{root}{value}" if value.startswith("/") else value


def _filled(text: str, known: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], text)


def _copy(context: Path, words: list[str]) -> None:
    *sources, into = words
    for source in sources:
        place = Path(into) / source if into.endswith("/") else Path(into)
        place.parent.mkdir(parents=True, exist_ok=True)
        if (context / source).is_dir():
            shutil.copytree(context / source, place)
        else:
            shutil.copy2(context / source, place)


def _run(command: str, root: Path, known: dict[str, str]) -> int:
    """Run a command as in the image, so that Python finds the installed packages."""
    trees = f"{root}/sgl-workspace/sglang/python:{root}/sgl-workspace/aiter"
    elsewhere = os.environ.get("ENGINE_ELSEWHERE", "")
    path = f"{elsewhere}:{trees}" if elsewhere else trees
    return subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, **known, "PYTHONPATH": path},
        cwd=root / "sgl-workspace",
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
