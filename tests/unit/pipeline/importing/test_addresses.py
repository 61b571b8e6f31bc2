"""E-mail addresses of rows: the import checks them without DNS and writes them in one form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue.workspace_file import read_workspace
from engine.domain.addresses import envelope_address
from engine.pipeline.importing.addresses import BadAddressError, plain_address, read_address
from engine.pipeline.importing.columns import Layout, RowFaultError
from engine.pipeline.importing.rows import UserRows

SHOP = read_workspace(Path(__file__).parents[3] / "integration" / "pipeline" / "importing" / "shop.yaml")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("ann@shop.example", "ann@shop.example"),
        ("Ann@SHOP.example", "Ann@shop.example"),
        ("ann+x@a.b.c.example", "ann+x@a.b.c.example"),
        ("o'hara@x.example", "o'hara@x.example"),
        ("info@faß.de", "info@faß.de"),
        ("info@FASS.de", "info@fass.de"),
        ("info@xn--fa-hia.de", "info@faß.de"),
        ("info@MÜNCHEN.de", "info@münchen.de"),
        ("a@ｅｘａｍｐｌｅ.com", "a@example.com"),
        ("jürgen@shop.example", "jürgen@shop.example"),
        ("a@x.test", "a@x.test"),
    ],
)
def test_an_address_is_stored_in_one_form(written: str, stored: str) -> None:
    assert read_address(written) == stored
    assert read_address(stored) == stored
    assert envelope_address(stored) is not None


@pytest.mark.parametrize(
    "written",
    [
        "ann", "ann@", "@x.example", "ann@localhost", "ann@shop", "a..b@x.example", ".a@x.example", "a@-x.example",
        "a@x..example", "a@x.example.", "a b@x.example", "a@x_y.example", "Ann <a@x.example>", "a@[127.0.0.1]",
        '"a b"@x.example', "a@x.123", "a@x.local", "a@x.invalid", "a@y.onion", "a" * 65 + "@x.example", " a@x.example",
        "a@x.example ", "a@x.example,b@x.example", "a@" + "b" * 64 + ".example", "a\n@x.example", "a@xn--zzzz.example",
        "a@☃.example", "a@" + "b." * 130 + "example",
    ],
)  # fmt: skip
def test_an_invalid_address_is_refused_with_a_reason(written: str) -> None:
    with pytest.raises(BadAddressError, match=r"^email: .{10,}"):
        read_address(written)


@given(
    st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,70}@[A-Za-z0-9.-]{1,70}\.[A-Za-z0-9-]{1,10}", fullmatch=True)
    | st.emails()
)
def test_the_fast_check_accepts_nothing_that_the_library_refuses(written: str) -> None:
    if not plain_address(written):
        return
    try:
        address = validate_email(written, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise AssertionError(written) from error
    assert address.normalized == written
    assert envelope_address(written) == written


@pytest.mark.parametrize("table", [True, False])
def test_addresses_that_differ_by_the_case_of_the_domain_are_one(*, table: bool) -> None:
    def read(raw: Any, layout: Layout | None = None) -> dict[str, Any]:
        rows = UserRows(SHOP, ["user_id", "email"] if table else None, layout or Layout())
        return dict(rows.read(["u", raw] if table else {"user_id": "u", "email": raw}).fields)

    assert read("a@Shop.EXAMPLE") == read("a@shop.example") == {"email": "a@shop.example"}
    assert read("") == ({} if table else {"email": None}), "an empty address is none"
    with pytest.raises(RowFaultError, match="is not an address"):
        read("a@shop")
    omitting = Layout(omit_addresses=True)
    assert read("a@shop", omitting) == {}
    assert read("a@Shop.example", omitting) == {"email": "a@shop.example"}
