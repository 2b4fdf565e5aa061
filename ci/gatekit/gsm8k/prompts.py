"""A custom prompt in sgl-eval's format: YAML with a ``user`` template."""

from __future__ import annotations

from pathlib import Path

import yaml

from gatekit.gsm8k.results import OWN_PROMPT
from overlaykit.core.digests import sha256
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

_MARK = "a question"


def prompt_digest(path: Path | None) -> str:
    """Check the prompt file and return the digest that is recorded.

    Raises InputError, and EnvironmentFailure if the file cannot be read.
    """
    if path is None:
        return OWN_PROMPT
    try:
        data = path.read_bytes()
    except OSError as error:
        finding = Finding(str(error), path=str(path), next_step="name another file")
        raise EnvironmentFailure(f"cannot read {path}", (finding,)) from error
    try:
        user = yaml.safe_load(data)["user"]
        if _MARK not in user.format(problem=_MARK):
            raise ValueError("the template does not contain {problem}")
    except (
        *(AttributeError, LookupError, TypeError, ValueError),
        *(RecursionError, yaml.YAMLError),
    ) as error:
        finding = Finding(
            " ".join(str(error).split()) or type(error).__name__,
            path=str(path),
            expected="YAML with `user: ... {problem} ...`; other braces doubled",
            next_step="correct it, or leave --prompt out",
        )
        raise InputError(f"{path} is not a prompt", (finding,)) from error
    return sha256(data)
