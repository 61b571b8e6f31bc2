"""What `tidegate policy route NAME` knows of a campaign: its facts, and its measured speed if MongoDB answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from engine.cli.context import opened, settings_of
from engine.errors import NotFound, OperatorError

if TYPE_CHECKING:
    from engine.pipeline.insight.slowness_evidence import SlownessEvidence
    from engine.policy.policyset import CampaignFacts, PolicySet


@dataclass(frozen=True, slots=True)
class Known:
    """A campaign's facts (None: not known) and its evidence, or why the measurement is unknown."""

    facts: CampaignFacts | None
    evidence: SlownessEvidence | None
    unknown: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Return the evidence as named lines for people."""
        return [("measured", f"unknown: {self.unknown}")] if self.evidence is None else self.evidence.rows()

    def document(self) -> dict[str, object]:
        """Return the evidence as one JSON document."""
        return {"unknown": self.unknown} if self.evidence is None else self.evidence.document()


def known_of(context: typer.Context, policies: PolicySet, name: str, workspace: str | None) -> Known:
    """Look a campaign up in MongoDB; if it does not answer or has no such campaign, only say so.

    Raises `WrongCall` if several workspaces have a campaign of that name.
    """
    from engine.pipeline.campaigns.compiled_cache import routing_facts
    from engine.pipeline.insight.slowness_evidence import evidence_of
    from engine.stores.stores import MONGO_OUTAGES

    settings_of(context)  # a wrong setting is an error, not an unknown measurement
    try:
        with opened(context) as app:
            record = app.named(name, workspace)
            facts = routing_facts(record)
            rule = policies.profile_for(facts).slow_when
            return Known(facts, evidence_of(record, rule, app.stores.campaigns))
    except NotFound:
        return Known(None, None, "the campaign is not applied")
    except OperatorError as error:
        return Known(None, None, f"{error} ({error.remedy})" if error.remedy else str(error))
    except MONGO_OUTAGES:
        return Known(None, None, "MongoDB does not answer")
