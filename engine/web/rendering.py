"""Makes HTML from the templates: everything is escaped, and a name that a template misspells is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import blake2b
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from engine.clock import Instant, format_duration, format_instant
from engine.pipeline.insight.system_map.svg import STYLE

LIVE: Final = "live_"
"""Blocks of a template whose names begin so are replaced in the browser while the page is open."""
_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_NONE: Final = "-"


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separated; `-` for None."""
    return _NONE if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """Return a rate with as many digits as it needs: `0`, `0.4`, `12`, `1,200`; `-` for None."""
    if value is None:
        return _NONE
    if 0 < value < 1:
        return f"{value:.2g}"
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share of 1 in percent; `-` for None."""
    return _NONE if value is None else f"{value:.{digits}%}"


def seconds(value: float | None) -> str:
    """Return seconds in a unit that fits: `12 ms`, `3.4 s`, `5m10s`; `-` for None."""
    if value is None:
        return _NONE
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 60 else format_duration(timedelta(seconds=round(value)))


def instant(value: Instant | None) -> str:
    """Return an instant to the second, in UTC: `2026-12-01 10:20:30`; `-` for None."""
    return _NONE if value is None else format_instant(value)[:19].replace("T", " ")


def size(value: int | None) -> str:
    """Return bytes in MB; `-` for None."""
    return _NONE if value is None else f"{value / 1e6:,.0f} MB"


class Static:
    """The files that pages load: read once, addressed with a digest of their content, so browsers may keep them."""

    def __init__(self) -> None:
        folder = files("engine.web") / "static"
        self._files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
        self._files["map.css"] = STYLE.encode()
        self._digests = {name: blake2b(raw, digest_size=8).hexdigest() for name, raw in self._files.items()}

    def address(self, name: str) -> str:
        """Return the address of a file. Raises `KeyError` for an unknown one."""
        return f"/static/{name}?v={self._digests[name]}"

    def get(self, name: str) -> tuple[bytes, str, str] | None:
        """Return content, type and digest of a file; None for an unknown one."""
        raw = self._files.get(name)
        return None if raw is None else (raw, _TYPES[name.rpartition(".")[2]], self._digests[name])


class Templates:
    """The templates of `engine/web/templates`; `values` are known to each of them."""

    def __init__(self, **values: object) -> None:
        self._environment = Environment(
            loader=PackageLoader("engine.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        filters: Mapping[str, Callable[..., str]] = {
            "number": number,
            "rate": rate,
            "percent": percent,
            "seconds": seconds,
            "instant": instant,
            "size": size,
        }
        self._environment.filters.update(filters)
        self._environment.globals.update(values)
        self._environment.globals["ui"] = self._environment.get_template("macros.html").module

    def names(self) -> list[str]:
        """Return the names of all templates."""
        return self._environment.list_templates()

    def source(self, name: str) -> str:
        """Return the text of a template. Raises Jinja's `TemplateNotFound`."""
        loader = self._environment.loader
        return "" if loader is None else loader.get_source(self._environment, name)[0]

    def page(self, name: str, values: Mapping[str, Any]) -> str:
        """Return a whole page. Raises Jinja's errors for a mistake in the template."""
        return self._environment.get_template(name).render(values)

    def regions(self, name: str, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the live blocks of a page by their names without the prefix."""
        template = self._environment.get_template(name)
        context = template.new_context(dict(values))
        return {
            block.removeprefix(LIVE): "".join(render(context))
            for block, render in template.blocks.items()
            if block.startswith(LIVE)
        }
