"""`tidegate access`: who may see the pages."""

from __future__ import annotations

import io

import pytest

from engine.domain.credentials import hash_token, password_fits
from tests.acceptance.conftest import Tidegate
from tests.support.installation import Installation


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Give `text` on stdin, which is no terminal."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_an_access_is_added_listed_and_removed(
    installation: Installation, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "correct horse battery\n")
    added = tidegate("access", "add", "ann", "--role", "operate", "-w", "shop")
    assert (added.code, added.err) == (0, "ann may operate the workspace shop\n")
    [kept] = installation.world.app.access_control.everything()
    assert password_fits("correct horse battery", kept.password)
    listed = tidegate("access", "list", "--json").document
    assert [(row["name"], row["role"], row["workspace"], row["by"]) for row in listed] == [
        ("ann", "operate", "shop", "password")
    ]
    assert "scrypt" not in tidegate("access", "list").out
    assert tidegate("access", "remove", "ann").code == 0
    assert tidegate("access", "list", "--json").document == []


def test_a_token_is_printed_once_alone_on_stdout(installation: Installation, tidegate: Tidegate) -> None:
    added = tidegate("access", "add", "bot", "--role", "read", "--token")
    token = added.out.strip()
    [kept] = installation.world.app.access_control.everything()
    assert kept.token == hash_token(token)
    assert token not in added.err


@pytest.mark.parametrize(
    ("arguments", "password", "problem"),
    [
        (("ann", "--role", "read"), "short\n", "a password has 10 to 1024 characters"),
        (("ann", "--role", "read"), "", "the password is missing"),
        (("a b", "--role", "read"), "long enough password", "cannot name an access"),
        (("local", "--role", "read"), "long enough password", "cannot name an access"),
        (("ann", "--role", "read", "-w", "nosuch"), "long enough password", "there is no workspace nosuch"),
        (("ann", "--role", "admin"), "long enough password", "admin"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_added(
    installation: Installation,
    tidegate: Tidegate,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    password: str,
    problem: str,
) -> None:
    typed(monkeypatch, password)
    refused = tidegate("access", "add", *arguments)
    assert refused.code == 2
    assert problem in refused.err
    assert installation.world.app.access_control.everything() == []


def test_a_name_is_given_once_and_an_unknown_one_is_named(tidegate: Tidegate) -> None:
    assert tidegate("access", "add", "bot", "--role", "read", "--token").code == 0
    again = tidegate("access", "add", "bot", "--role", "operate", "--token")
    assert again.code == 2
    assert "tidegate access remove bot" in again.err
    unknown = tidegate("access", "remove", "bob")
    assert unknown.code == 2
    assert "there are: bot" in unknown.err
