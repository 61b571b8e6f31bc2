"""Read the delivered mails, and compare them with the expected ones."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from examples.grocer import mails, summary
from examples.grocer.mails import StrangeMail
from examples.grocer.oracle import Mail

DAY = date(2017, 2, 8)


def headers(**changed: str) -> dict[str, str]:
    """Return the headers of a good mail, with some changed (`_` for `-`) and empty ones left out."""
    good = {
        "From": "The Grocer <news@grocer.example>",
        "To": "hh-7@example.org",
        "Subject": "Your coupons",
        "Tidegate-Delivery": "grocer/0f3a/0123abcd/hh-7/0001/offer",
        "Tidegate-Campaign": "list-27",
        "Tidegate-As-Of": "2017-02-08T23:59:59.999Z",
    }
    good.update({name.replace("_", "-"): value for name, value in changed.items()})
    return {name: value for name, value in good.items() if value}


def deliver(folder: Path, name: str, part: str = "new", **changed: str) -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    lines = [f"{header}: {value}" for header, value in headers(**changed).items()]
    (folder / part / name).write_bytes("\r\n".join([*lines, "", "To: hh-9@example.org in the body"]).encode())


def test_a_mail_names_user_message_campaign_and_day(tmp_path: Path) -> None:
    deliver(tmp_path, "a")
    assert mails.read_maildir(tmp_path) == [Mail("list-27", 7, "offer", DAY)]


def test_a_folded_header_is_read_as_one(tmp_path: Path) -> None:
    deliver(tmp_path, "a", Tidegate_Delivery="\r\n grocer/0f3a/0123abcd/hh-7/0001/offer")
    assert mails.read_maildir(tmp_path) == [Mail("list-27", 7, "offer", DAY)]


def test_read_mails_count_and_unfinished_ones_do_not(tmp_path: Path) -> None:
    deliver(tmp_path, "a", "new")
    deliver(tmp_path, "b:2,S", "cur", To="hh-8@example.org")
    deliver(tmp_path, "c", "tmp", To="hh-9@example.org")
    assert [mail.household for mail in mails.read_maildir(tmp_path)] == [7, 8]


def test_a_missing_maildir_holds_no_mail(tmp_path: Path) -> None:
    assert mails.read_maildir(tmp_path / "maildir") == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("To", ""),
        ("To", "somebody@example.org"),
        ("To", "hh-7@example.com"),
        ("Tidegate_Campaign", ""),
        ("Tidegate_Delivery", "grocer/list-27/hh-7"),
        ("Tidegate_As_Of", "2017-02-08T12:00:00.000Z"),
    ],
)
def test_a_mail_without_its_headers_is_refused(tmp_path: Path, header: str, value: str) -> None:
    deliver(tmp_path, "a", **{header: value})
    with pytest.raises(StrangeMail, match=f"a: {header.replace('_', '-')}"):
        mails.read_maildir(tmp_path)


EXPECTED = {
    Mail("lapsed", 1, "we-miss-you", DAY),
    Mail("lapsed", 2, "we-miss-you", DAY),
    Mail("list-27", 1, "offer", DAY),
}


def test_exactly_the_expected_mails_are_right() -> None:
    comparison = summary.compare(EXPECTED, EXPECTED)
    assert comparison.right
    assert comparison.differences == ()
    assert [(line.campaign, line.expected, line.found) for line in comparison.lines] == [
        ("lapsed", 2, 2),
        ("list-27", 1, 1),
    ]


def test_an_expected_mail_that_is_absent_is_missing() -> None:
    comparison = summary.compare(EXPECTED, EXPECTED - {Mail("list-27", 1, "offer", DAY)})
    assert not comparison.right
    assert comparison.lines[1] == summary.Line("list-27", expected=1, found=0, missing=1, extra=0, doubled=0)
    assert comparison.differences == ("list-27 hh-1 offer on 2017-02-08: missing",)


def test_an_unexpected_mail_is_extra_even_in_an_unknown_campaign() -> None:
    comparison = summary.compare(EXPECTED, [*EXPECTED, Mail("surprise", 1, "hello", DAY)])
    assert comparison.lines[1] == summary.Line("surprise", expected=0, found=1, missing=0, extra=1, doubled=0)
    assert not comparison.right


def test_each_further_copy_of_a_mail_is_doubled() -> None:
    twice = Mail("lapsed", 1, "we-miss-you", DAY)
    comparison = summary.compare(EXPECTED, [*EXPECTED, twice, twice])
    assert comparison.lines[0] == summary.Line("lapsed", expected=2, found=4, missing=0, extra=0, doubled=2)
    assert not comparison.right


def test_a_mail_on_the_wrong_day_is_missing_and_extra() -> None:
    late = Mail("list-27", 1, "offer", date(2017, 2, 9))
    comparison = summary.compare(EXPECTED, [*(EXPECTED - {Mail("list-27", 1, "offer", DAY)}), late])
    assert (comparison.total.missing, comparison.total.extra, comparison.total.doubled) == (1, 1, 0)


def test_the_table_and_the_file_list_every_difference(tmp_path: Path) -> None:
    comparison = summary.compare(EXPECTED, [])
    console = Console(width=100, record=True, file=(tmp_path / "shown.txt").open("w"))
    with console.file:
        summary.show(comparison, console, "thirteen weeks")
    assert "lapsed hh-2 we-miss-you on 2017-02-08: missing" in console.export_text()
    summary.write(comparison, tmp_path / "summary.json")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["right"] is False
    assert written["total"]["missing"] == len(written["differences"]) == 3
