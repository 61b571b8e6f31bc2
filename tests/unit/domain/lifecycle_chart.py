"""Draw `docs/lifecycle.md` from the tables of `engine.domain.lifecycle`.

`.venv/bin/python -m tests.unit.domain.lifecycle_chart` rewrites the page; `test_lifecycle.py` fails while it is out of
date.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

from engine.domain.lifecycle import (
    SENTENCES,
    SETTLED,
    SKIPPED_BECAUSE,
    TRANSITIONS,
    CampaignState,
    DeliveryState,
    EnrolmentState,
    ExitReason,
    RunState,
    SkipReason,
    SliceState,
)

PAGE: Final = Path(__file__).parents[3] / "docs" / "lifecycle.md"
REWRITE: Final = ".venv/bin/python -m tests.unit.domain.lifecycle_chart"

_EXITS: Final = ", ".join(f"`{reason}`" for reason in ExitReason)
_SETTLED: Final = ", ".join(f"`{state}`" for state in DeliveryState if state in SETTLED)
_SKIPPED: Final = f" A skipped one has a reason: {', '.join(f'`{reason}`' for reason in SkipReason)}."

_REASONS: Final = "\n| skipped because | meaning |\n|---|---|\n" + "".join(
    f"| `{reason}` | {SKIPPED_BECAUSE[reason]} |\n" for reason in SkipReason
)

MACHINES: Final[dict[str, tuple[type[StrEnum], str]]] = {
    "Campaign": (CampaignState, "From its first apply to its end. Only `live` lets users in."),
    "Enrolment": (
        EnrolmentState,
        f"One user in one campaign, from entry to exit. It ends for exactly one reason: {_EXITS}.",
    ),
    "Delivery": (
        DeliveryState,
        f"One message to one user in one enrolment. Settled, and not chosen again in it: {_SETTLED}.{_SKIPPED}",
    ),
    "Run": (RunState, "One pass of one campaign with a fixed `as_of`."),
    "Slice": (SliceState, "A part of a run, or of a campaign's deliveries: what one worker holds under a lease."),
}

INTRODUCTION: Final = f"""\
# The lifecycle on one page

This page shows every state and every allowed transition. `{REWRITE}` draws it from
the tables in `engine/domain/lifecycle.py`; run it after a change there. The terms are explained in
[concepts](concepts.md).
"""


def page() -> str:
    """Return the whole page."""
    return INTRODUCTION + "".join(_section(name, *machine) for name, machine in MACHINES.items())


def _section(name: str, states: type[StrEnum], introduction: str) -> str:
    rows = ""
    for state in states:
        leads = ", ".join(f"`{after}`" for after in _after(states, state)) or "an end"
        rows += f"| `{state}` | {SENTENCES[states][state]} | {leads} |\n"
    arrows = "".join(f"    {before} --> {after}\n" for before in states for after in _after(states, before))
    ends = "".join(f"    {state} --> [*]\n" for state in states if not TRANSITIONS[states][state])
    first = next(iter(states))
    chart = f"```mermaid\nstateDiagram-v2\n    [*] --> {first}\n{arrows}{ends}```\n"
    reasons = _REASONS if states is DeliveryState else ""
    return f"\n## {name}\n{introduction}\n\n{chart}\n| state | meaning | leads to |\n|---|---|---|\n{rows}{reasons}"


def _after(states: type[StrEnum], before: StrEnum) -> list[StrEnum]:
    """Return the states that follow `before`, in the order of the states."""
    return [state for state in states if state in TRANSITIONS[states][before]]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
