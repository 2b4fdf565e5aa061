"""The audit of a dead guard: open it in memory, run everything behind it, and list what
goes wrong.

Start with :func:`audit`. ``guards`` names the guards, ``opening`` opens them,
``faults`` compares the runs, ``text`` writes the result down, and ``reading`` reads it
from a report.
"""

from xscale.audit.auditing import Audit, audit
from xscale.audit.faults import Fault, NotJudged
from xscale.audit.guards import ALL, DeadGuard
from xscale.audit.reading import audits_in
from xscale.audit.text import rendered

__all__ = [
    "ALL",
    "Audit",
    "DeadGuard",
    "Fault",
    "NotJudged",
    "audit",
    "audits_in",
    "rendered",
]
