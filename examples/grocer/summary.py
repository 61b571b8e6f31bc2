"""The proof: what came out against what the oracle says, campaign by campaign."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.grocer.oracle import Mail

SHOWN = 20
"""Differences that are printed one by one; the file has all."""


@dataclass(frozen=True, slots=True)
class Line:
    """One campaign: mails expected and found, and the three ways to be wrong (each counts mails)."""

    campaign: str
    expected: int
    found: int
    missing: int
    extra: int
    doubled: int

    @property
    def right(self) -> bool:
        """Whether everybody got exactly what they should have, on the right day."""
        return self.missing == self.extra == self.doubled == 0


@dataclass(frozen=True, slots=True)
class Summary:
    """All campaigns, and each difference as a text."""

    lines: tuple[Line, ...]
    differences: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether there is no difference at all."""
        return not self.differences and all(line.right for line in self.lines)

    @property
    def total(self) -> Line:
        """The sums over all campaigns."""
        return Line(
            "all",
            expected=sum(line.expected for line in self.lines),
            found=sum(line.found for line in self.lines),
            missing=sum(line.missing for line in self.lines),
            extra=sum(line.extra for line in self.lines),
            doubled=sum(line.doubled for line in self.lines),
        )


def compare(expected: Collection[Mail], mails: Iterable[Mail]) -> Summary:
    """Each of `mails` counts. A mail on a wrong day is one missing and one extra; a second copy is doubled."""
    counted = Counter(mails)
    expected_mails = set(expected)
    missing, extra = expected_mails - counted.keys(), counted.keys() - expected_mails
    doubled = {mail: copies - 1 for mail, copies in counted.items() if copies > 1}
    lines = tuple(
        Line(
            campaign,
            expected=_of(campaign, expected_mails),
            found=_of(campaign, counted.elements()),
            missing=_of(campaign, missing),
            extra=_of(campaign, extra),
            doubled=sum(copies for mail, copies in doubled.items() if mail.campaign == campaign),
        )
        for campaign in sorted({mail.campaign for mail in expected_mails | counted.keys()}, key=_shown_order)
    )
    differences = [(mail, "missing") for mail in missing] + [(mail, "extra") for mail in extra]
    differences += [(mail, f"{copies} more than once") for mail, copies in doubled.items()]
    return Summary(lines, tuple(f"{_told(mail)}: {what}" for mail, what in sorted(differences)))


def show(summary: Summary, console: Console, title: str) -> None:
    """Print the table and the first differences."""
    table = Table(title=title, title_justify="left")
    table.add_column("campaign")
    for name in ("expected", "mails", "missing", "extra", "doubled"):
        table.add_column(name, justify="right")
    for line in summary.lines:
        table.add_row(*_cells(line))
    table.add_section()
    table.add_row(*_cells(summary.total), style="bold")
    console.print(table)
    for text in summary.differences[:SHOWN]:
        console.print(text, markup=False, highlight=False)
    if len(summary.differences) > SHOWN:
        console.print(f"and {len(summary.differences) - SHOWN} more")


def write(summary: Summary, path: Path) -> None:
    """Write the whole summary as one JSON document."""
    document = {
        "right": summary.right,
        "campaigns": [asdict(line) for line in summary.lines],
        "total": asdict(summary.total),
        "differences": summary.differences,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _cells(line: Line) -> tuple[str, ...]:
    wrong = (f"[red]{count}[/red]" if count else "0" for count in (line.missing, line.extra, line.doubled))
    return (line.campaign, str(line.expected), str(line.found), *wrong)


def _of(campaign: str, mails: Iterable[Mail]) -> int:
    return sum(mail.campaign == campaign for mail in mails)


def _shown_order(campaign: str) -> tuple[bool, str]:
    """The continuous ones first."""
    return campaign.startswith("list-"), campaign


def _told(mail: Mail) -> str:
    return f"{mail.campaign} hh-{mail.household} {mail.message} on {mail.day}"
