#!/usr/bin/env python3
"""Stands in for the forge's command-line tool: a folder of JSON files is the forge.

Takes the commands that the nightly run gives, and refuses any other, as gh does. The
folder is named by FORGE. A file ``refuse`` in it makes every change fail.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

FORGE = Path(os.environ["FORGE"])


def main() -> None:
    """Do one command."""
    kind, action, *rest = sys.argv[1:]
    if (kind, action) == ("label", "create"):
        return
    if action != "list" and (FORGE / "refuse").exists():
        sys.exit("HTTP 403: Resource not accessible by integration")
    parser = ArgumentParser()
    if action in ("edit", "close"):
        parser.add_argument("number", type=int)
    for option in _OPTIONS[kind, action]:
        parser.add_argument(f"--{option}", required=option in _REQUIRED)
    given = vars(parser.parse_args(rest))
    place = FORGE / f"{kind}s.json"
    entries = json.loads(place.read_bytes()) if place.exists() else []
    if action == "list":
        wanted = ("head", "label")
        print(json.dumps([
            {"number": entry["number"], "title": entry["title"]} for entry in entries
            if entry["open"]
            and all(entry.get(w) == given[w] for w in wanted if given.get(w))
        ]))  # fmt: skip
        return
    if action == "create":
        entry = {"number": len(entries) + 1, "open": True}
        entries.append(entry)
    else:
        entry = entries[given["number"] - 1]
    if body := given.pop("body_file", None):
        given["body"] = Path(body).read_text(encoding="utf-8")
    entry |= {k: v for k, v in given.items() if v is not None and k != "number"}
    entry["open"] = action != "close"
    place.write_text(json.dumps(entries), encoding="utf-8")


_REQUIRED = ("body-file", "json")
_OPTIONS = {
    ("pr", "list"): ("head", "state", "limit", "json"),
    ("pr", "create"): ("head", "title", "body-file"),
    ("pr", "edit"): ("title", "body-file"),
    ("issue", "list"): ("label", "state", "limit", "json"),
    ("issue", "create"): ("title", "label", "body-file"),
    ("issue", "edit"): ("body-file",),
    ("issue", "close"): ("comment",),
}

if __name__ == "__main__":
    main()
