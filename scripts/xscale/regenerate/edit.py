"""Choose the edit that a hunk stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlaykit.core.python import needs
from xscale.census import SiteRow
from xscale.regenerate.blocks import make_contiguous, pass_to_gemm
from xscale.regenerate.call import call_through_adapter
from xscale.regenerate.imports import import_names
from xscale.regenerate.names import ADAPTER
from xscale.sites import CATALOGUE, PRODUCERS, Role

# How a communicator knows the projection: by the layer's method that calls it.
_LATENT = "self.qkv_latent_func"


@dataclass(frozen=True)
class Edit:
    """The purpose of a hunk: its sites, and the names that it imports."""

    sites: tuple[str, ...]
    scope: str
    imports: tuple[str, ...]


def regenerate(
    edit: Edit, source: bytes, rows: Iterable[SiteRow], module_scope: bool
) -> bytes | None:
    """Make the edit in a file's contents; ``rows`` is the file's census.

    None if it is none of the four edits, if more than one place matches, or if the
    contents do not parse.
    """
    import libcst as cst

    try:
        return _chosen(edit, source, rows, module_scope)
    except cst.ParserSyntaxError:
        return None


def _chosen(
    edit: Edit, source: bytes, rows: Iterable[SiteRow], module_scope: bool
) -> bytes | None:
    if module_scope:
        kernels = [k for k in PRODUCERS if k.encode() in source]
        beside = kernels[0] if ADAPTER in edit.imports and kernels else None
        return import_names(source, edit.imports, beside) if edit.imports else None
    if not edit.sites:
        return make_contiguous(source, edit.scope)
    here = [r for r in rows if r.site in edit.sites and r.scope == edit.scope]
    if {row.role for row in here} == {Role.CONSUMER}:
        return pass_to_gemm(source, edit.scope)
    if {row.site for row in here} != set(edit.sites):
        return None
    if _LATENT.encode() not in source and any(
        _LATENT in _projection(row.site) for row in here
    ):
        return None
    made: bytes | None = source
    # From the last line up, so that no edit moves the lines of the next one.
    for line, site in sorted(((r.line, r.site) for r in here if r.line), reverse=True):
        if made is not None:
            made = call_through_adapter(made, line, _projection(site))
    return made


def _projection(site: str) -> str:
    """The expression by which the site's scope names the projection of its scale."""
    [one] = (entry for entry in CATALOGUE if entry.id == site)
    return f"self.{one.feeds}" if one.feeds else f"qkv_a_projection({_LATENT})"


def need_libcst() -> None:
    """Raises EnvironmentFailure if libcst is missing."""
    with needs("maintain"):
        import libcst  # noqa: F401
