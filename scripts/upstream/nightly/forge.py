"""One pull request or one issue on the forge, opened once and then updated.

Git pushes with the user's configuration and credentials, and the forge is reached by
its command-line tool, ``gh``, which has its own. Neither is given anything that
upstream wrote as a part of a command: titles and bodies are arguments and files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlaykit.core.documents import from_json
from overlaykit.core.errors import EnvironmentFailure, Finding, not_started
from overlaykit.core.files import write_whole
from upstream.nightly.night import Night, Outcome
from upstream.nightly.texts import ISSUE, body, title

LABEL = "upstream-drift"
_MOST = "100"

Say = Callable[[str], None]


class _Listed(msgspec.Struct, frozen=True):
    number: int
    title: str = ""


@dataclass(frozen=True)
class Forge:
    """The forge's repository that the remote ``origin`` of ``tree`` is. With
    ``dry_run`` nothing is pushed, opened or changed."""

    tree: Path
    out: Path
    say: Say
    dry_run: bool = False

    def publish(self, night: Night) -> str:
        """Open or update the pull request or the issue; what was done, in words.

        Raises EnvironmentFailure if git or the forge refuses.
        """
        if night.outcome is Outcome.SAME:
            return "nothing to do"
        text = self.out / "body.md"
        write_whole(text, body(night))
        if night.outcome is Outcome.STOPPED:
            return self._issue(text)
        done = self._pull_request(night, text)
        for one in self._issues():
            self._change(
                "issue", "close", str(one.number), "--comment", f"It carries: {done}."
            )
        return done

    def _pull_request(self, night: Night, text: Path) -> str:
        branch = f"nightly/{night.name}"
        self._commit(night, text)
        self._run("git", "push", "--quiet", "--force", "origin",
                  f"HEAD:refs/heads/{branch}")  # fmt: skip
        what = ("--title", title(night), "--body-file", str(text))
        listed = self._list("pr", "--head", branch)
        if listed:
            self._change("pr", "edit", str(listed[0].number), *what)
            return f"updated pull request {listed[0].number}"
        self._change("pr", "create", "--head", branch, *what)
        return f"opened a pull request for {branch}"

    def _commit(self, night: Night, text: Path) -> None:
        paths = ("overlay.toml", "overlay.lock", "releases.lock", "patches", "overlay")
        self._run("git", "add", "--all", "--", *paths)
        self._run("git", "commit", "--quiet", "--message", title(night),
                  "--message", f"Upstream: {night.about}")  # fmt: skip

    def _issue(self, text: Path) -> str:
        what = ("--body-file", str(text))
        if listed := self._issues():
            self._change("issue", "edit", str(listed[0].number), *what)
            return f"updated issue {listed[0].number}"
        about = ("--description", "Kept up to date by the nightly workflow")
        self._change("label", "create", LABEL, "--force", *about)
        self._change("issue", "create", "--title", ISSUE, "--label", LABEL, *what)
        return "opened an issue"

    def _issues(self) -> list[_Listed]:
        """The open issues of this title, oldest first."""
        listed = self._list("issue", "--label", LABEL)
        return [one for one in listed if one.title == ISSUE]

    def _list(self, kind: str, *arguments: str) -> list[_Listed]:
        said = self._run(
            "gh", kind, "list", *arguments, "--state", "open", "--limit", _MOST,
            "--json", "number,title",
        )  # fmt: skip
        try:
            found = from_json(said, list[_Listed])
        except msgspec.DecodeError as error:
            what = f"gh {kind} list printed no list: {error}"
            raise EnvironmentFailure(what) from error
        return sorted(found, key=lambda one: one.number)

    def _change(self, *arguments: str) -> None:
        self._run("gh", *arguments)

    def _run(self, *command: str) -> bytes:
        self.say(" ".join(command[:3]))
        if self.dry_run and "list" not in command:
            return b""
        try:
            done = subprocess.run(
                command, cwd=self.tree, capture_output=True, check=False
            )
        except OSError as error:
            raise not_started(command[0], error) from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            finding = Finding(
                f"{' '.join(command[:2])} failed",
                found=said.rpartition("\n")[2] or f"exit code {done.returncode}",
                next_step="check the credentials of git and gh, then run it again",
            )
            raise EnvironmentFailure("the night was not published", (finding,))
        return done.stdout
