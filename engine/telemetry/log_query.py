"""The query language of log searches, e.g. `campaign:winback user:hh-1 timeout`.

One query works for Elasticsearch and for the files.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from engine.clock import Instant, format_instant
from engine.domain.log_documents import DIFFERING
from engine.errors import WrongCall
from engine.telemetry.contract import LABELS
from engine.telemetry.redaction import Redactor

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **{label: (f"labels.{label}",) for label in sorted(LABELS)},
    "campaign": ("labels.campaign", "labels.campaign_uid"),
    "process": ("process.name", "labels.process"),
    "event": ("event.action",),
    "outcome": ("event.outcome",),
    "level": ("log.level",),
    "trace": ("trace.id",),
    "pid": ("process.pid",),
}
"""The words before a colon, each with the fields of a line that hold its value."""

_TEXTS: Final = ("message", "error.message")
_CODES: Final = ("error.type", "labels.reason")
_SEARCHED: Final = _TEXTS + _CODES


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Selects lines that have every term and every word, from `since` on.

    A term is a field and a value; `*` at the end of the value makes it a prefix.
    """

    terms: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    since: Instant | None = None

    def matches(self, line: Mapping[str, object]) -> bool:
        """Return whether a line read from a file matches."""
        if self.since is not None and str(line.get("@timestamp", "")) < format_instant(self.since):
            return False
        if not _has(line, self.terms):
            return False
        if not self.words:
            return True
        text = "\n".join(str(value_of(line, path) or "") for path in _SEARCHED).lower()
        return all(word.lower() in text for word in self.words)

    def picks(self, line: Mapping[str, object]) -> bool:
        """Return whether a line of a document found by `elastic` matches.

        Two lines of it may have met the terms together.
        """
        return _has(line, [term for term in self.terms if DIFFERING.intersection(FIELDS[term[0]])])

    def elastic(self) -> dict[str, object]:
        """Return the Elasticsearch query of the documents with these lines; there a word matches as a prefix."""
        filters: list[dict[str, object]] = [
            {"bool": {"should": [_term(path, value) for path in FIELDS[name]]}} for name, value in self.terms
        ]
        filters += [{"bool": {"should": _word(word)}} for word in self.words]
        if self.since is not None:
            filters.append({"range": {"@timestamp": {"gte": format_instant(self.since)}}})
        return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def parse_query(text: str, redactor: Redactor, since: Instant | None = None) -> LogQuery:
    """Parse a query; search for a user id in its logged form (a pseudonym if it looks like an address).

    Raises `WrongCall` for an unknown word before a colon or an open quote.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise WrongCall(f"cannot read the query: {error}", remedy="close the quote") from error
    terms: list[tuple[str, str]] = []
    words: list[str] = []
    for part in parts:
        name, colon, value = part.partition(":")
        if not colon or not name or " " in part.partition(":")[0]:
            words.append(part)
        elif name in FIELDS:
            shown = redactor.user(value) if name == "user" else redactor.key(value) if name == "key" else value
            terms.append((name, shown))
        else:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {near[0]}:{value}?" if near else f"one of {', '.join(FIELDS)}; or quote '{part}'"
            raise WrongCall(f"no field {name!r} to search for", remedy=hint)
    return LogQuery(tuple(terms), tuple(words), since)


def named_in(text: str) -> tuple[str | None, str | None]:
    """Return the user and the campaign that a query names, as typed; None for either that it does not name."""
    parts = [part.partition(":") for part in shlex.split(text)]
    named = {name: value for name, colon, value in parts if colon and value and not value.endswith("*")}
    return named.get("user"), named.get("campaign")


def value_of(line: Mapping[str, object], path: str) -> object:
    """Return the value at a dotted path of a line, nested or written with dots; None if absent."""
    if path in line:
        return line[path]
    first, _, rest = path.partition(".")
    inside = line.get(first)
    return value_of(inside, rest) if rest and isinstance(inside, Mapping) else None


def _has(line: Mapping[str, object], terms: Iterable[tuple[str, str]]) -> bool:
    for name, pattern in terms:
        values = [str(value) for path in FIELDS[name] if (value := value_of(line, path)) is not None]
        if not any(_equal(value, pattern) for value in values):
            return False
    return True


def _equal(value: str, pattern: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


def _word(word: str) -> list[dict[str, object]]:
    texts: list[dict[str, object]] = [{"match_phrase_prefix": {path: word}} for path in _TEXTS]
    codes: list[dict[str, object]] = [{"prefix": {path: {"value": word, "case_insensitive": True}}} for path in _CODES]
    return texts + codes


def _term(path: str, value: str) -> dict[str, object]:
    if path == "process.pid":
        return {"term": {path: int(value) if value.isdigit() else -1}}
    return {"prefix": {path: value[:-1]}} if value.endswith("*") else {"term": {path: value}}
