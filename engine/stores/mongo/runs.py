"""Runs: one pass of one campaign with a fixed `as_of`. Ids are deterministic, so planning twice creates one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.clock import Instant, millis
from engine.domain.document import Document
from engine.domain.lifecycle import RunState, check_transition
from engine.domain.work import AccessPath, Failure, Run, RunKind, RunSummary, WindowCost
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY, READ_MAJORITY
from engine.stores.mongo.work_documents import without_none

UNDECIDED: Final = (RunState.PLANNING.value, RunState.RUNNING.value)

INDEXES: Final = (
    IndexModel(
        [("state", ASCENDING), ("campaign", ASCENDING)], name="undecided", partialFilterExpression={"open": True}
    ),
    IndexModel([("campaign", ASCENDING), ("kind", ASCENDING), ("as_of", ASCENDING)], name="campaign"),
    IndexModel([("ended_at", ASCENDING)], name="ended", partialFilterExpression={"ended_at": {"$exists": True}}),
)


@named_queries("runs")
class Runs:
    """The runs of all campaigns; a document contains `open: true` while its run is undecided."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection(
            "runs", write_concern=MAJORITY, read_concern=READ_MAJORITY
        )

    def add(self, run: Run) -> bool:
        """Insert a run; return False if a run with this id exists."""
        document = without_none(
            {
                "_id": run.id,
                "workspace": run.workspace,
                "campaign": run.campaign,
                "kind": run.kind.value,
                "as_of": run.as_of,
                "state": run.state.value,
                "after": run.after,
                "path": run.path and run.path.value,
                "evaluation": run.evaluation or None,
                "takes_over": run.takes_over or None,
                "inactivity": run.inactivity,
                "policy": run.policy,
                "open": True,
            }
        )
        try:
            self._all.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    def get(self, run_id: str) -> Run | None:
        """Return one run. Index: `_id`."""
        raw = self._all.find_one({"_id": run_id})
        return None if raw is None else _run(raw)

    def move(
        self,
        run: Run,
        state: RunState,
        results: Mapping[str, int] | None = None,
        *,
        plan: Mapping[str, object] | None = None,
        pieces: int | None = None,
    ) -> bool:
        """Move a run to `state`, if its state is still that of `run`. Raises `IllegalTransition`. Index: `_id`.

        `plan` is the result of planning (path, estimates), stored for the report; `pieces` is the number of slices.
        """
        check_transition(run.state, state)
        fields: Document = {"state": state.value, "failure": "$$REMOVE"}
        if plan is not None:
            fields["plan"] = {"$literal": dict(plan)}
            fields |= {"planned_at": "$$NOW", "pieces": pieces}
        if results is not None:
            fields["results"] = {"$literal": dict(results)}
        stages: list[Document] = [{"$set": fields}]
        if state in (RunState.DECIDED, RunState.DROPPED):
            stages = [{"$set": fields | {"ended_at": "$$NOW"}}, {"$unset": ["open"]}]
        return self._all.update_one({"_id": run.id, "state": run.state.value}, stages).matched_count == 1

    def undecided(self, campaigns: Sequence[str] | None = None) -> list[Run]:
        """Return runs that are being planned or decided, of `campaigns` or of all. Index: `undecided`."""
        query: Document = {"open": True, "state": {"$in": list(UNDECIDED)}}
        if campaigns is not None:
            query["campaign"] = {"$in": list(campaigns)}
        return [_run(raw) for raw in self._all.find(query, hint="undecided")]

    def failed(self, run: Run, reason: str, rests: timedelta) -> None:
        """Record that a run could not be planned or closed, and let it rest for a while. Index: `_id`.

        The record is removed when the run moves on.
        """
        now = {"$toLong": "$$NOW"}
        failure: Document = {
            "reason": {"$literal": reason},
            "since": {"$ifNull": ["$failure.since", now]},
            "count": {"$add": [{"$ifNull": ["$failure.count", 0]}, 1]},
            "until": {"$add": [now, millis(rests)]},
        }
        self._all.update_one({"_id": run.id, "state": run.state.value}, [{"$set": {"failure": failure}}])

    def count(self, campaign: str, kind: RunKind, as_of: Instant) -> int:
        """Return how many runs of a kind a campaign has at `as_of`. Index: `campaign`, covered."""
        return self._all.count_documents({"campaign": campaign, "kind": kind.value, "as_of": as_of}, hint="campaign")

    def count_all(self) -> int:
        """Return the number of runs from the collection's metadata; a change shows that a run was created meanwhile."""
        return self._all.estimated_document_count()

    def of_campaign(self, campaign: str, limit: int) -> list[RunSummary]:
        """Return the latest runs of a campaign, for the report. Index: `campaign`."""
        found = self._all.find({"campaign": campaign}, hint="campaign").sort([("kind", 1), ("as_of", -1)]).limit(limit)
        return [_summary(raw) for raw in found]

    def results_of(self, campaigns: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return the results of the decided runs, summed by name, for each of `campaigns` by uid.

        A campaign without results is absent. Index: `campaign`. Runs that ended longer ago than the retention time are
        deleted and do not count; launch runs are kept.
        """
        totals = self._all.aggregate(
            [
                {"$match": {"campaign": {"$in": list(campaigns)}, "results": {"$exists": True}}},
                {"$project": {"campaign": 1, "results": {"$objectToArray": "$results"}}},
                {"$unwind": "$results"},
                {"$group": {"_id": {"c": "$campaign", "k": "$results.k"}, "n": {"$sum": "$results.v"}}},
            ],
            hint="campaign",
        )
        sums: dict[str, dict[str, int]] = {}
        for raw in totals:
            sums.setdefault(raw["_id"]["c"], {})[raw["_id"]["k"]] = raw["n"]
        return sums

    def costs_by_window(self, campaigns: Sequence[str]) -> dict[str, list[WindowCost]]:
        """Return what the decided runs of each campaign (by uid) cost under each inactivity window, the earliest first.

        Launches and resumes do not count: they evaluate everybody once. Index: `campaign`. Runs that ended longer ago
        than the retention time are deleted.
        """
        kinds = [kind.value for kind in RunKind if kind not in (RunKind.LAUNCH, RunKind.RESUME)]
        chosen = {"$add": [{"$ifNull": [f"$results.{name}", 0]} for name in ("chosen", "holdout")]}
        totals = self._all.aggregate(
            [
                {
                    "$match": {
                        "campaign": {"$in": list(campaigns)},
                        "kind": {"$in": kinds},
                        "results": {"$exists": True},
                        "inactivity": {"$exists": True},
                    }
                },
                {
                    "$group": {
                        "_id": {"c": "$campaign", "w": "$inactivity"},
                        "since": {"$min": "$as_of"},
                        "last": {"$max": {"as_of": "$as_of", "policy": "$policy"}},
                        "runs": {"$sum": 1},
                        "evaluated": {"$sum": {"$ifNull": ["$results.users", 0]}},
                        "chosen": {"$sum": chosen},
                    }
                },
                {"$sort": {"last.as_of": 1, "_id.w": 1}},
            ],
            hint="campaign",
        )
        costs: dict[str, list[WindowCost]] = {}
        for raw in totals:
            window, policy = timedelta(milliseconds=raw["_id"]["w"]), raw["last"]["policy"]
            cost = WindowCost(window, policy, raw["since"], raw["runs"], raw["evaluated"], raw["chosen"])
            costs.setdefault(raw["_id"]["c"], []).append(cost)
        return costs

    def launch_decided(self, campaign: str) -> bool:
        """Whether the launch run is decided, read with majority. Index: `campaign`."""
        document = self._all.find_one(
            {"campaign": campaign, "kind": RunKind.LAUNCH.value}, {"state": 1}, hint="campaign"
        )
        return document is not None and document["state"] == RunState.DECIDED.value

    def forget_ended(self, older_than: timedelta) -> int:
        """Delete runs, except launch runs, that ended longer ago than `older_than`; return how many. Index: `ended`."""
        query = {
            "ended_at": {"$exists": True},
            "kind": {"$ne": RunKind.LAUNCH.value},
            "$expr": {"$lt": ["$ended_at", {"$subtract": ["$$NOW", millis(older_than)]}]},
        }
        return self._all.delete_many(query, hint="ended").deleted_count


def _run(raw: Document) -> Run:
    return Run(
        raw["_id"],
        raw["workspace"],
        raw["campaign"],
        RunKind(raw["kind"]),
        raw["as_of"],
        RunState(raw["state"]),
        raw.get("after"),
        AccessPath(raw["path"]) if "path" in raw else None,
        raw.get("evaluation", 0),
        Failure(**raw["failure"]) if "failure" in raw else None,
        raw.get("takes_over", False),
        raw.get("inactivity"),
        raw.get("policy"),
    )


def _summary(raw: Document) -> RunSummary:
    planned, ended = raw.get("planned_at"), raw.get("ended_at")
    return RunSummary(
        id=raw["_id"],
        kind=RunKind(raw["kind"]),
        as_of=raw["as_of"],
        state=RunState(raw["state"]),
        plan=raw.get("plan") or {},
        results=raw.get("results") or {},
        took=ended - planned if planned and ended else None,
    )


NAMED: Final[Mapping[str, str]] = {
    "runs.undecided": "undecided",
    "runs.count": "campaign",
    "runs.of_campaign": "campaign",
    "runs.results_of": "campaign",
    "runs.costs_by_window": "campaign",
    "runs.launch_decided": "campaign",
}
"""The named queries and the index each relies on."""
