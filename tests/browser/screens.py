"""`python -m tests.browser.screens URL FOLDER`: pictures of the main pages of `make demo-web`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

PAGES: Final = {
    "overview": "/",
    "campaign": "/w/grocer/campaigns/lapsed",
    "user": "/w/grocer/user?id=hh-1",
    "policies": "/policies",
}
"""The main pages, by the name of the picture."""
WIDTH: Final = 1280
MOST: Final = 1_000
"""Height (px) below which a picture is cut."""


def main(url: str, folder: Path) -> None:
    """Write a picture of each page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": MOST}, color_scheme="light")
        for name, path in PAGES.items():
            page.goto(url.rstrip("/") + path)
            page.wait_for_timeout(2_500)  # the live figures of the page come once
            whole = page.evaluate("document.documentElement.scrollHeight")
            page.screenshot(
                path=folder / f"{name}.png",
                clip={"x": 0, "y": 0, "width": WIDTH, "height": min(MOST, whole)},
                full_page=True,
            )
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
