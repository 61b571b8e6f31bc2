"""`/logs`: search the log lines, and the whole story of a delivery; who sees one workspace finds its lines alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from starlette.responses import Response

from engine.clock import Instant, millis, parse_duration
from engine.errors import EngineError, OperatorError, WrongCall
from engine.telemetry.delivery_story import LONGEST, Focus, Line, story
from engine.telemetry.log_file_search import Files
from engine.telemetry.log_query import LogQuery, parse_query, value_of
from engine.telemetry.logging import for_people
from engine.telemetry.redaction import Redactor, pseudonym_key
from engine.web.page import Call, Page, Reach

SHOWN: Final = 200
"""Lines that one page shows, the newest."""
USUALLY: Final = "1h"


def logs(call: Call) -> Response:
    """Show the newest lines that match."""
    text, since = call.asked("q").strip(), call.asked("since", USUALLY).strip() or USUALLY
    whole = call.asked("story") == "yes"
    lines: Sequence[Line] = ()
    fault, source = "", ""
    if text or call.asked("since"):
        try:
            query = _query(call, text, since)
            lines, source = _found(call, query, whole=whole)
        except EngineError as error:
            fault = f"{error}. {error.remedy}" if error.remedy else str(error)
    return call.show(
        "logs.html",
        title="Log search",
        command=f"tidegate logs search '{text}'" + (" --story" if whole else ""),
        text=text,
        since=since,
        whole=whole,
        fault=fault,
        source=source,
        lines=[_shown(line) for line in reversed(lines)],
        asked=bool(text or call.asked("since")),
        most=SHOWN,
    )


def _query(call: Call, text: str, since: str) -> LogQuery:
    try:
        earliest: Instant = call.app.system.system_now() - millis(_length(since))
    except ValueError as error:
        raise WrongCall(f"since: {error}", remedy="write 15m, 1h or 7d") from error
    redactor = Redactor(pseudonym_key(call.app.settings.log_folder))
    query = parse_query(text, redactor, earliest)
    own = call.viewer.workspace
    return query if own is None else replace(query, terms=(*query.terms, ("workspace", own)))


def _length(text: str) -> timedelta:
    return min(parse_duration(text), timedelta(days=30))


def _found(call: Call, query: LogQuery, *, whole: bool) -> tuple[Sequence[Line], str]:
    """Return the lines, and where they were found."""
    index, own = call.site.logs, call.viewer.workspace
    files = Files(call.app.settings.log_folder)

    def mine(line: Line) -> bool:
        return own is None or value_of(line, "labels.workspace") == own

    if index is not None:
        try:
            hits = index.search(query.elastic(), SHOWN, query.picks)
            if hits is not None:
                if not whole:
                    return [line for line in hits if mine(line)], "Elasticsearch"

                def about(focus: Focus) -> list[Line]:
                    return [line for line in index.search(focus.elastic(), LONGEST, focus.holds) or () if mine(line)]

                return story(hits, about), "Elasticsearch"
            why = "nothing was shipped yet"
        except OperatorError as error:
            why = str(error)
    else:
        why = "there is no log search"
    found = files.search(query, SHOWN)
    lines = story(found, lambda focus: [one for one in files.about(focus, LONGEST) if mine(one)]) if whole else found
    return lines, f"the log files of this machine, because {why}"


def _shown(line: Line) -> tuple[str, str, str, str]:
    """Return time, level, event and the rest of a line."""
    shown = for_people(line)
    level, event = str(shown.pop("level")), str(shown.pop("event"))
    shown.pop("timestamp", None)
    at = str(line.get("@timestamp", ""))[:23].replace("T", " ")
    return at, level, event, " ".join(f"{name}={value}" for name, value in shown.items())


PAGES: Final = (Page("/logs", logs, Reach.OWN),)
