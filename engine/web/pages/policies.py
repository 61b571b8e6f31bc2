"""`/policies`: the policies in force and earlier versions; `/policies/VERSION`; `/policies/check` judges an edit.

Editing itself stays in files: they are in the company's repository, with its reviews.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import yaml
from starlette.responses import Response

from engine.clock import Instant
from engine.domain.access import Role
from engine.domain.document import Document
from engine.domain.lifecycle import CampaignState
from engine.errors import InvalidSource, WrongCall
from engine.pipeline.campaigns.compiled_cache import ENDED, routing_facts
from engine.pipeline.insight.policy_effects import Effects, effects
from engine.pipeline.insight.policy_forecast import NOT_MODELLED, Forecast, forecast
from engine.policy.difference import differences
from engine.policy.load import load_policies
from engine.policy.policyset import CampaignFacts, PolicySet
from engine.web.page import Call, Page, Reach, not_there

VERSIONS: Final = 50
"""Earlier versions that are listed."""
DAYS: Final = 7
"""Days of recorded slices that an edit is replayed against: all that are kept."""
_NAME: Final = re.compile(r"lanes\.yaml|[A-Za-z0-9_-]{1,64}\.yaml")


def policies(call: Call) -> Response:
    """Show the policies in force, and the versions that were in force before."""
    now = call.app.policies
    history = call.read("MongoDB", "the earlier versions", call.app.stores.policy_versions.history) or []
    return call.show(
        "policies.html",
        title="Policies",
        command="tidegate policy show",
        policies=now,
        files=_files(call),
        history=_with_changes(history[:VERSIONS]),
    )


def version(call: Call) -> Response:
    """Show one recorded version, and what it changed."""
    name = call.part("version")
    history = call.app.stores.policy_versions.history()
    place = next((number for number, raw in enumerate(history) if raw["_id"] == name), None)
    if place is None:
        raise not_there(f"version {name}")
    content = _set_of(history[place])
    before = _set_of(history[place + 1]) if place + 1 < len(history) else None
    return call.show(
        "policy_version.html",
        title=f"Policies {name}",
        command=f"tidegate policy diff {history[place + 1]['_id'] if before else name} {name}",
        version=name,
        first_used=history[place]["first_used_at"],
        changes=[] if before is None else [str(one) for one in differences(before, content)],
        before=None if before is None else before.version,
        text=yaml.safe_dump(content.plain(), sort_keys=False, allow_unicode=True),
    )


def check(call: Call) -> Response:
    """Judge an edited file: what is wrong with it, or what it would change."""
    name, text = call.form.get("file", "").strip(), call.form.get("text", "").replace("\r\n", "\n")
    if not _NAME.fullmatch(name):
        raise WrongCall("the file: expected lanes.yaml, or the name of a profile's file such as bulk.yaml")
    found: Effects | None = None
    told: Forecast | None = None
    faults: list[str] = []
    after = None
    try:
        after = _edited(call, name, text)
        found = effects(call.app.policies, after, _campaigns(call))
        if call.form.get("replay") == "yes":
            stores, today = call.app.stores, call.app.policies
            read = partial(forecast, stores.slices, stores.campaigns, today, after, timedelta(days=DAYS))
            told = call.read("MongoDB", "the forecast", read)
    except InvalidSource as error:
        faults = [re.sub(r"^.*/(?=[^/]+\.yaml)", "", line) for line in str(error).splitlines()]
    return call.show(
        "policy_check.html",
        title="An edit, judged",
        command=f"tidegate policy check {name}",
        name=name,
        text=text,
        faults=faults,
        effects=found,
        forecast=told,
        left_out=NOT_MODELLED,
        after=None if after is None else after.version,
    )


def _edited(call: Call, name: str, text: str) -> PolicySet:
    with tempfile.TemporaryDirectory(prefix="tidegate-policy-") as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8")
        return load_policies(call.app.settings.paths.policies, edited=file)


def _campaigns(call: Call) -> list[CampaignFacts]:
    states = [state for state in CampaignState if state not in ENDED]
    records = call.read("MongoDB", "the campaigns", lambda: call.app.stores.campaigns.in_states(states)) or []
    return [routing_facts(record) for record in records]


def _files(call: Call) -> list[tuple[str, str]]:
    """Return the files in force with their text, by name below the folder of the policies."""
    folder = call.app.settings.paths.policies
    found = sorted(folder.glob("*.yaml")) + sorted((folder / "profiles").glob("*.yaml"))
    files = []
    for path in found:
        try:
            files.append((str(path.relative_to(folder)), path.read_text(encoding="utf-8")))
        except OSError:  # an editor replaces it at this moment
            continue
    return files


def _set_of(raw: Document) -> PolicySet:
    content = raw["content"]
    return PolicySet.from_plain(content if isinstance(content, Mapping) else {})


def _with_changes(history: list[Document]) -> list[tuple[str, Instant, str]]:
    """Return version, first use, and what it changed against the one before, in a line."""
    rows: list[tuple[str, Instant, str]] = []
    for number, raw in enumerate(history):
        changes = ""
        if number + 1 < len(history):
            found = [str(one) for one in differences(_set_of(history[number + 1]), _set_of(raw))]
            changes = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        rows.append((str(raw["_id"]), raw["first_used_at"], changes))
    return rows


PAGES: Final = (
    Page("/policies", policies, Reach.INSTALLATION),
    Page("/policies/check", check, Reach.INSTALLATION, Role.OPERATE, "POST"),
    Page("/policies/{version}", version, Reach.INSTALLATION),
)
