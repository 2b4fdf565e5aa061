"""The sections on where the series landed, the census, and the numeric proof."""

from __future__ import annotations

from gatekit.report.documents import Census, Landing, Proof
from gatekit.report.evidence import Kind, find_evidence
from gatekit.report.schema import GateReport
from gatekit.report.section import Mark, Section, Table, Text

_LANDING = Kind("apply", "hunks", Landing, "landing table")
_CENSUS = Kind("verify", "digest", Census, "census")
_PROOF = Kind("verify", "numeric", Proof, "numeric table")
_LIVE: dict[bool | None, Text] = {
    True: "yes",
    False: Mark("no", "bad"),
    None: "not known from the source",
}


def landing(report: GateReport) -> Section:
    """The section with the hunks from ``apply``."""
    seen = find_evidence(report, "apply", _LANDING)
    tables = []
    for tree in seen.found:
        rows = [
            (
                hunk.patch.removesuffix(".patch"),
                _place(hunk.path, hunk.line),
                hunk.scope,
                " ".join(hunk.sites) or "-",
                hunk.state + (f" {hunk.shift:+d}" if hunk.shift else ""),
            )
            for hunk in tree.hunks
        ]
        header = ("patch", "file", "scope", "sites", "outcome")
        tables.append(Table(f"{tree.target}: {tree.outcome}", header, tuple(rows)))
    said = (
        f"{tree.target}: {tree.outcome}; {len(tree.hunks)} hunks"
        + "".join(f"; not part of this kind of tree: {p}" for p in tree.skipped)
        for tree in seen.found
    )
    return seen.section("landing", "Where the series landed", said, tables)


def census(report: GateReport) -> Section:
    """The section with the sites from ``verify``."""
    seen = find_evidence(report, "verify", _CENSUS)
    tables = []
    for tree in seen.found:
        rows = [
            (
                site.site,
                site.role,
                site.kernel,
                _place(site.path, site.line),
                site.scope or "-",
                site.state,
                _LIVE[site.live],
            )
            for site in tree.sites
        ]
        header = ("site", "role", "kernel", "file", "scope", "state", "live")
        # These are sentences, too long for a column of the table above.
        how = tuple((site.site, site.detail) for site in tree.sites)
        if rows:
            tables.append(Table(f"{tree.target}: sites", header, tuple(rows)))
            caption = f"{tree.target}: how the state of each site is known"
            tables.append(Table(caption, ("site", "how"), how, folded=True))
    said = (
        f"{tree.target}: {tree.outcome}, tree {tree.digest}, "
        + (f"{len(tree.sites)} sites" if tree.sites else "no census of this target")
        for tree in seen.found
    )
    return seen.section("census", "Producers and consumers of the scales", said, tables)


def numeric(report: GateReport) -> Section:
    """The section with the numeric proof, site by site."""
    seen = find_evidence(report, "numeric", _PROOF)
    tables = []
    for proof in seen.found:
        rows: list[tuple[Text, ...]] = []
        for site in proof.numeric:
            counts = (
                _of(site.bytes, site.readings),
                _of(site.values, site.compared),
                _of(site.gemm, site.compared),
            )
            rows.append(
                (
                    site.site,
                    site.route,
                    str(site.readings),
                    *counts,
                    site.copies_asked or "-",
                    site.copies_unasked or "-",
                    ", ".join(site.stand_ins) or "-",
                )
            )
        header = (
            "site", "route", "readings", "bytes right", "values as the base's",
            "GEMM as the base's", "copies, transposed", "copies, not", "GEMM run by",
        )  # fmt: skip
        with_ = ", ".join(f"{k} {v}" for k, v in proof.ran_with.items())
        caption = f"{proof.target}, {with_}"
        tables.append(Table(caption, header, tuple(rows), (2, 3, 4, 5, 6, 7)))
    said = (
        f"{proof.target}: {proof.right} of {proof.cases} cases right, on "
        f"{proof.ran_with.get('device', 'an unknown device')}"
        + ("" if proof.base else "; there is no base to compare values with")
        for proof in seen.found
    )
    return seen.section("numeric", "Every scale by its bytes", said, tables)


def _place(path: str | None, line: int | None) -> str:
    if path is None:
        return "nowhere"
    return path.rpartition("/")[2] + (f":{line}" if line is not None else "")


def _of(right: int, total: int) -> Text:
    if not total:
        return "-"
    return f"{right}" if right == total else Mark(f"{right} of {total}", "bad")
