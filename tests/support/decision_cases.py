"""Helpers for tests of the decision: a workspace, users, campaigns from specs, and enrolments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from engine.campaign.compiled import CompiledCampaign, Facts, compile_campaign
from engine.campaign.load import campaign_from_spec
from engine.catalogue.workspace_file import workspace_of
from engine.clock import millis
from engine.decisions.decide import Decision, Exit, Send, decide
from engine.domain.campaign import CampaignRecord
from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.keys import enrolment_id, suffix_of_user, user_key
from engine.domain.lifecycle import CampaignState, DeliveryState, EnrolmentState, ExitReason, SkipReason
from engine.yamlfile.nodes import parse

NOW = 1_796_083_200_000
"""2026-12-01T00:00:00Z."""
HOUR = 3_600_000
DAY = 24 * HOUR
ORDER = "Order Completed"

SHOP = workspace_of(
    parse(
        """
workspace: shop
timezone: UTC
attributes:
  plan: string
  points: integer
  seen: time
events:
  Order Completed: {value: {type: decimal, scale: 2}}
  Coupon Redeemed: {}
""",
        "conf/workspaces/shop.yaml",
    )
)
_COMPILED: dict[str, CompiledCampaign] = {}  # compiling a campaign takes longer than evaluating a hundred users
GOLD: Mapping[str, Any] = {"plan": "gold"}


@dataclass(frozen=True)
class Patience:
    """The part of a profile that the decision reads."""

    inactivity: timedelta = timedelta(days=45)


@dataclass(frozen=True)
class Someone:
    """A user: attributes and events as (name, time, properties)."""

    attributes: Mapping[str, Any] = field(default_factory=lambda: dict(GOLD))
    events: Sequence[tuple[str, int, Mapping[str, Any]]] = ()
    deleted: bool = False
    name: str = "ann"
    lists: Sequence[str] = ()

    @property
    def key(self) -> str:
        return user_key("shop", self.name)

    def document(self) -> dict[str, Any]:
        """Return the document of `users`, with event summaries that match `events`."""
        values: dict[str, dict[str, int]] = {}
        for event, t, _ in self.events:
            summary = values.setdefault(event, {"n": 0, "first": t, "last": t})
            values[event] = {"n": summary["n"] + 1, "first": min(summary["first"], t), "last": max(summary["last"], t)}
        document = {"_id": self.key, "w": "shop", "u": self.name, "rev": 1, "a": dict(self.attributes)}
        return document | {"e": values, "lists": list(self.lists)} | ({"deleted": True} if self.deleted else {})

    def facts(self, campaign: CompiledCampaign) -> Facts:
        """Return everything that an evaluation of this campaign can know about the user."""
        known = [tuple((t, p) for name, t, p in self.events if name == query.name) for query in campaign.queries]
        return Facts(SHOP.row(self.document()), tuple(known))

    def facts_read(self, campaign: CompiledCampaign, latest: Enrolment | None, as_of: int) -> Facts:
        """Return what the pipeline reads to evaluate at `as_of`: the events in each query's window, if it needs any."""
        facts = self.facts(campaign)
        if facts.row is None or facts.events is None or not campaign.needs_events(facts.row, latest, as_of):
            return Facts(facts.row, None)
        starts = [None if query.within is None else as_of - millis(query.within) for query in campaign.queries]
        return Facts(
            facts.row,
            tuple(
                tuple((t, p) for t, p in events if start is None or t > start)
                for events, start in zip(facts.events, starts, strict=True)
            ),
        )


def message(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "channel": "email", "subject": "Hello", "body": "Hello", **more}


def campaign(
    *,
    state: CampaignState = CampaignState.LIVE,
    launching: bool = False,
    resumed_at: int = 0,
    revision: int = 1,
    renamed: Mapping[str, Sequence[str]] | None = None,
    uid: str = "c1",
    **written: Any,
) -> CompiledCampaign:
    """Compile a continuous campaign for gold users: message `one`, then `two` after two days; `written` overrides."""
    spec = {
        "campaign": "hello",
        "workspace": "shop",
        "kind": "continuous",
        "audience": dict(GOLD),
        "messages": [message("one"), message("two", wait="2d")],
        **written,
    }
    record = CampaignRecord(
        uid, "shop", "hello", spec["kind"], state, revision, spec, resumed_at=resumed_at, renamed=renamed or {}
    )
    key = repr((uid, revision, spec, renamed))
    if key not in _COMPILED:
        _COMPILED[key] = compile_campaign(record, campaign_from_spec(spec, SHOP))
    return _COMPILED[key].at_state(record, launching=launching)


def enrolment(
    *,
    entered_at: int = NOW - DAY,
    entry: int = 1,
    outgoing: str | None = None,
    attempting: bool = False,
    settled: Sequence[tuple[str, int]] = (),
    ended: tuple[ExitReason, int] | None = None,
    holdout: bool = False,
    converted_at: int | None = None,
    name: str = "ann",
) -> Enrolment:
    """Return an enrolment of user `name` in the campaign `c1`; `settled` lists (message, time), all sent."""
    key = user_key("shop", name)
    state = DeliveryState.ATTEMPTING if attempting else DeliveryState.QUEUED
    return Enrolment(
        id=enrolment_id("shop", "c1", suffix_of_user(key), entry),
        workspace="shop",
        campaign="c1",
        user=key,
        entry=entry,
        state=EnrolmentState.ACTIVE if ended is None else EnrolmentState.ENDED,
        entered_at=entered_at,
        revision=1,
        version=1,
        settled_at=max((at for _, at in settled), default=None),
        ended_at=None if ended is None else ended[1],
        reason=None if ended is None else ended[0],
        holdout=holdout,
        converted_at=converted_at,
        outgoing=None if outgoing is None else Outgoing(outgoing, state, entered_at, entered_at),
        settled=tuple(Settled(delivery, DeliveryState.SENT, at) for delivery, at in settled),
    )


def evaluate(
    at: CompiledCampaign,
    user: Someone,
    latest: Enrolment | None = None,
    as_of: int = NOW,
    inactivity: timedelta = timedelta(days=45),
) -> Decision:
    """Evaluate a user with all their facts."""
    return decide(at, Patience(inactivity), user.facts(at), latest, as_of)


def exits(decision: Decision) -> ExitReason | None:
    return decision.outcome.reason if isinstance(decision.outcome, Exit) else None


def sends(decision: Decision) -> str | None:
    """Return the message that the decision sends, or None if it sends none or skips it."""
    outcome = decision.outcome
    return outcome.message if isinstance(outcome, Send) and outcome.skip is None else None


def skips(decision: Decision) -> tuple[str, SkipReason] | None:
    outcome = decision.outcome
    return (outcome.message, outcome.skip) if isinstance(outcome, Send) and outcome.skip is not None else None
