"""The command line of ``sglang.launch_server``, from a released wheel's own source.

Importing SGLang needs PyTorch and much more, but its parser does not. The function that
declares all options is compiled from the wheel unchanged, with its file's constants
and the helpers and two tables that it uses from other files.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_ARGS = "sglang/srt/server_args.py"
_COMMON = "sglang/srt/utils/common.py"
_HELPERS = (
    "human_readable_int",
    "json_list_type",
    "nullable_str",
    "print_deprecated_warning",
)
_TABLES = {
    ("FunctionCallParser", "ToolCallParserEnum"): (
        "sglang/srt/function_call/function_call_parser.py"
    ),
    ("ReasoningParser", "DetectorMap"): "sglang/srt/parser/reasoning_parser.py",
}


class Unknown(list[str]):
    """A placeholder for another file's constant; the options we use need none."""


class Defaults:
    """A placeholder for ``ServerArgs``: the options' defaults do not matter here."""

    def __getattr__(self, name: str) -> None:
        return None


def server_parser(wheel: Path) -> argparse.ArgumentParser:
    """A parser with all options of the release's server, without abbreviations."""
    with zipfile.ZipFile(wheel) as archive:
        module = ast.parse(archive.read(_ARGS))
        common = ast.parse(archive.read(_COMMON))
        tables = {
            names: _keys(ast.parse(archive.read(path)), *names)
            for names, path in _TABLES.items()
        }
    declare = _method(module, "ServerArgs", "add_cli_args")
    known: dict[str, Any] = {
        "argparse": argparse,
        "json": json,
        "re": re,
        "Decimal": Decimal,
        "ServerArgs": Defaults(),
        **{
            owner: SimpleNamespace(**{name: dict.fromkeys(keys)})
            for (owner, name), keys in tables.items()
        },
        **dict(_constants(module)),
    }
    helpers = [n for n in (*common.body, *module.body) if _is_helper(n)]
    future = ast.parse("from __future__ import annotations").body
    for name in {n.id for n in ast.walk(declare) if isinstance(n, ast.Name)}:
        if name.isupper() and name not in known:
            known[name] = Unknown()
    code = ast.Module(body=[*future, *helpers, declare], type_ignores=[])
    exec(compile(ast.fix_missing_locations(code), _ARGS, "exec"), known)
    parser = argparse.ArgumentParser(
        prog="sglang", allow_abbrev=False, exit_on_error=False
    )
    known["add_cli_args"](parser)
    return parser


def _constants(module: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                yield node.targets[0].id, ast.literal_eval(node.value)
            except ValueError:
                continue


def _is_helper(node: ast.stmt) -> bool:
    """Whether a node defines an argument type or action, which needs nothing else."""
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base) == "argparse.Action" for base in node.bases)
    return isinstance(node, ast.FunctionDef) and node.name in _HELPERS


def _method(module: ast.Module, owner: str, name: str) -> ast.FunctionDef:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and one.name == name:
                    one.decorator_list = []
                    return one
    raise LookupError(f"{owner}.{name}")


def _keys(module: ast.Module, owner: str, name: str) -> list[str]:
    for node in ast.walk(module):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name
            and isinstance(node.value, ast.Dict)
        ):
            return [str(ast.literal_eval(key)) for key in node.value.keys if key]
    raise LookupError(f"{owner}.{name}")
