"""A real browser on the pages of a running installation.

It is Debian's Chromium (`.ci/install-debian` installs it); a desk without it skips these tests, CI does not.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.integration.conftest import installation, make_world, migrated, world
from tests.support.installation import Installation

__all__ = ["installation", "make_world", "migrated", "world"]

SERVED = re.compile(r"the pages: (http://\S+)")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield the browser."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no chromium: .ci/install-debian installs it")
        pytest.skip("there is no chromium (.ci/install-debian installs it)")
    with sync_playwright() as playwright:
        # a container's /dev/shm is small, and root has no sandbox
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@dataclass
class Visit:
    """A browser window on an installation, and what went wrong in it, but for what a test expects."""

    context: BrowserContext
    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    expected: str = "ERR_ABORTED"

    def open(self, path: str) -> Page:
        """Open a page, and wait until it is there."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"
        return self.page


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Yield a function that opens a window; the test fails if the browser complains about anything in it."""
    made: list[Visit] = []

    def begin(url: str, **more: object) -> Visit:
        context = browser.new_context(**more)  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        one = Visit(context, context.new_page(), url)
        one.page.on("console", lambda said: one.faults.append(said.text) if said.type == "error" else None)
        one.page.on("pageerror", lambda error: one.faults.append(str(error)))
        one.page.on("requestfailed", lambda asked: one.faults.append(f"{asked.url}: {asked.failure}"))
        made.append(one)
        return one

    yield begin
    known = ("ERR_ABORTED", *(one.expected for one in made))
    faults = [fault for one in made for fault in one.faults if not any(part in fault for part in known)]
    for one in made:
        one.context.close()
    assert not faults, faults  # a stream that ends with its page is aborted: nothing else may fail


@pytest.fixture
def running(installation: Installation) -> Callable[[], str]:
    """Return a function that starts `tidegate run` and returns the address of its pages."""

    def start() -> str:
        process = installation.running()
        found = installation.until(lambda: SERVED.search(installation.said()), "the pages", process)
        return str(found[1])

    return start
