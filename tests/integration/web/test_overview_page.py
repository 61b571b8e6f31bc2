"""`/`: the whole installation on one page."""

from __future__ import annotations

from tests.support.web_pages import Pages


def test_the_overview_says_that_no_process_lives(pages: Pages) -> None:
    assert "no process has reported for 10 s" in pages.get("/")


def test_an_unknown_page_says_so_as_a_page(pages: Pages) -> None:
    answer = pages.client().get("/nothing")
    assert answer.status_code == 404
    assert "there is no such page" in answer.text


def test_every_answer_forbids_foreign_scripts_and_frames(pages: Pages) -> None:
    for path in ("/", "/nothing", "/static/style.css"):
        headers = pages.client().get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
