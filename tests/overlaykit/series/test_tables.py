"""overlay.toml is edited as text: one table changes, and not one byte beside it."""

from __future__ import annotations

import msgspec
import pytest

from overlaykit.core.errors import InputError
from overlaykit.series.manifest import parse_manifest
from overlaykit.series.tables import with_table, without_table

ROWS = 'repository = "https://localhost/x"\npackage = "p"\npackage_root = "p"\n'
MANIFEST = f"""\
# The overlay.
name = "x"

# About the first.
[targets.one]  # the first
{ROWS}tag = "v1"

# About the second.
[targets."two.2"]
{ROWS}commit = "{"2" * 40}"
overlay = "one"

[targets.three]
{ROWS}commit = "{"3" * 40}"
# The new files of another.
overlay = "one"
dist = {{ name = "p", version = "3" }}
""".encode()


def test_one_table_is_replaced() -> None:
    target = parse_manifest(MANIFEST).targets["two.2"]
    new = msgspec.structs.replace(target, commit="4" * 40)
    table = f'[targets."two.2"]\n{ROWS}commit = "{"4" * 40}"\noverlay = "one"\n'
    made = with_table(MANIFEST, "two.2", table, new)
    assert made == MANIFEST.replace(b"2" * 40, b"4" * 40)


def test_a_table_is_removed_with_the_blank_line_before_it() -> None:
    made, heir = without_table(MANIFEST, "two.2")
    at, end = MANIFEST.index(b'[targets."two.2"]'), MANIFEST.index(b"\n[targets.three]")
    assert (made, heir) == (MANIFEST[:at] + MANIFEST[end:], None)
    assert list(parse_manifest(made).targets) == ["one", "three"]


def test_the_first_that_shares_new_files_keeps_them() -> None:
    made, heir = without_table(MANIFEST, "one")
    assert heir == "two.2"
    overlays = {n: t.overlay for n, t in parse_manifest(made).targets.items()}
    assert overlays == {"two.2": None, "three": "two.2"}
    assert b"# The new files of another.\n" in made


@pytest.mark.parametrize(
    "manifest",
    [
        MANIFEST.replace(b'[targets."two.2"]', b'[targets . "two.2"]'),
        MANIFEST.replace(
            b"[targets.one]  # the first\n",
            b'[targets.one]\nimage = """\n[targets."two.2"]\n"""\n',
        ),
    ],
)
def test_what_cannot_be_edited_as_text_is_refused(manifest: bytes) -> None:
    assert "two.2" in parse_manifest(manifest).targets
    with pytest.raises(InputError) as refused:
        without_table(manifest, "two.2")
    assert refused.value.findings[0].next_step is not None
