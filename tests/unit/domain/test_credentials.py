"""Passwords and tokens as they are kept."""

from __future__ import annotations

import pytest

from engine.domain.credentials import TOKEN, hash_password, hash_token, new_token, password_fits


def test_a_password_fits_its_own_hash_alone() -> None:
    kept = hash_password("correct horse")
    assert password_fits("correct horse", kept)
    assert not password_fits("correct horsE", kept)
    assert "correct" not in kept


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("correct horse") != hash_password("correct horse")


@pytest.mark.parametrize("kept", ["", "scrypt$1", "md5$1$2$3$4"])
def test_nothing_fits_a_hash_that_is_none(kept: str) -> None:
    assert not password_fits("", kept)


def test_tokens_are_long_known_by_their_beginning_and_kept_as_hashes() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith(TOKEN) and len(token) > 50 for token in tokens)
    assert hash_token("a") != "a"
    assert len(hash_token("a")) == 64
