"""Domains by IDNA 2008 and UTS 46, non-transitional: the destination must not depend on who prepared the address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.addresses import ascii_domain, envelope_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The four characters in which IDNA 2003 and 2008 differ: they give another domain, and often another owner.
        ("info@faß.de", "info@xn--fa-hia.de"),
        ("info@Faß.DE", "info@xn--fa-hia.de"),
        ("info@ΒΌΛΟΣ.gr", "info@xn--nxasmq6b.gr"),
        ("info@βόλος.gr", "info@xn--nxasmm1c.gr"),
        ("info@نامه‌ای.ir", "info@xn--mgba3gch31f060k.ir"),
        # Mapped by UTS 46.
        ("info@BÜCHER.example", "info@xn--bcher-kva.example"),
        ("info@bu\u0308cher.example", "info@xn--bcher-kva.example"),
        ("info@ｅｘａｍｐｌｅ。com", "info@example.com"),
        ("info@ex\u00adample.de", "info@example.de"),
        # ASCII domains stay unchanged, whatever their hyphens.
        ("info@FASS.de", "info@FASS.de"),
        ("info@xn--fa-hia.de", "info@xn--fa-hia.de"),
        ("info@r3---sn.example", "info@r3---sn.example"),
        ("zoë@exämple.org", "zoë@xn--exmple-cua.org"),
        # Not domains.
        ("info@☃.net", None),
        ("info@😀.ws", None),
        ("info@a\u200db.de", None),
        ("info@٠a.de", None),
        ("info@ü_b.example", None),
        ("info@ü..example", None),
        ("info@ü.example.", None),
        ("info@bücher", None),
        ("info@" + "ü" * 64 + ".example", None),
        ("info@" + "ü." * 130 + "example", None),
        ("info@ü.１２", None),
        ("\ud800@b.example", None),
        ("info@\ud800.example", None),
    ],
)
def test_addresses_follow_idna_2008_non_transitional(text: str, expected: str | None) -> None:
    assert envelope_address(text) == expected


@given(st.text(min_size=1, max_size=40))
def test_a_domain_is_made_ascii_once(text: str) -> None:
    """No input raises, and converting a resulting host name again returns it unchanged."""
    domain = ascii_domain(text)
    assert domain is None or (domain.isascii() and ascii_domain(domain) == domain)
