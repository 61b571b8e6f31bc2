"""The pages, one module each; `ALL` lists them in the order in which addresses are matched."""

from __future__ import annotations

from typing import Final

from engine.web.page import Page
from engine.web.pages import login, overview

ALL: Final[tuple[Page, ...]] = (*overview.PAGES, *login.PAGES)
