"""The metrics as a table: each one's name, type, labels, unit and meaning, and what a high value says.

`docs/metrics.md` is made from it (`python -m engine.telemetry.metric_types > docs/metrics.md` writes its table anew);
`engine.telemetry.exposition` refuses a metric or a label that does not stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What Prometheus calls the type of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricType:
    """One metric. `name` is that of its family: a counter's samples end in `_total`, a histogram's in `_bucket`.

    `meaning` is one sentence, `high` what a high value (or, where it says so, a low one) tells, empty where none does.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str
    high: str = ""

    @property
    def sample(self) -> str:
        """The name to use in a query: with `_total` for a counter; of a histogram that of the family."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


METRICS: Final[dict[str, MetricType]] = {}


def _metric(kind: Kind, name: str, labels: str, unit: str, meaning: str, high: str = "") -> None:
    METRICS[f"tidegate_{name}"] = MetricType(f"tidegate_{name}", kind, tuple(labels.split()), unit, meaning, high)


_G, _C, _H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

_metric(_G, "build_info", "version python policy", "1", "The engine's version, Python's, and the policies in force.")
_metric(_G, "up", "store", "0 or 1", "Whether a store answers.", "0: runbook store-down.")
_metric(
    _G,
    "view_age_seconds",
    "",
    "seconds",
    "The age of the picture of lanes, fleets and stores from which these metrics are made.",
    "The web process reads slowly, or a store answers slowly.",
)
_metric(
    _G,
    "level",
    "part name",
    "-1 unknown, 0 idle, 1 fine, 2 strained, 3 failing",
    "The verdict on each lane, fleet, producer, store and channel, as the map shows it.",
    "3: `tidegate map` says why.",
)

# lanes
_metric(
    _G,
    "lane_messages",
    "lane state",
    "messages",
    "Messages in the queue of a lane: `ready`, `delayed`, `taken` by a process, and `dead` letters.",
    "Dead letters: runbook dead-letters.",
)
_metric(_G, "lane_slices", "lane state", "slices", "Open slices of a lane: `free`, or `held` by a worker.")
_metric(
    _G,
    "lane_oldest_seconds",
    "lane",
    "seconds",
    "How long the oldest slice or message has waited that could be taken.",
    "Runbook lane-waits.",
)
_metric(_G, "lane_slices_per_second", "lane", "slices a second", "Slices closed, over the last 10 s.")
_metric(_G, "lane_batches_per_second", "lane", "batches a second", "Batches of users or deliveries, over 10 s.")
_metric(_G, "lane_users_per_second", "lane", "users a second", "Users evaluated, over the last 10 s.")
_metric(
    _H,
    "lane_wait_seconds",
    "lane",
    "seconds",
    "How long slices waited from free to claimed, each turn counted when the slice has ended.",
    "The lane has more work than its fleets can do.",
)
_metric(_H, "lane_work_seconds", "lane", "seconds", "How long workers held slices, turn by turn.")
_metric(_C, "slices_ended", "lane state", "slices", "Slices ended, by how: `done`, `split`, `dropped` or `dead`.")
_metric(_C, "users_evaluated", "lane", "users", "Users evaluated in ended slices.")

# fleets, producers, processes
_metric(_G, "fleet_processes", "fleet", "processes", "Living processes of a fleet.", "Low: runbook process-missing.")
_metric(_G, "fleet_processes_wanted", "fleet", "processes", "Processes that the policies ask for.")
_metric(_G, "fleet_threads", "fleet", "threads", "Threads of a fleet's living processes.")
_metric(
    _G,
    "fleet_busy_threads",
    "fleet",
    "threads",
    "Threads that work now.",
    "All busy for long: add threads.",
)
_metric(
    _G,
    "producer_processes",
    "producer",
    "processes",
    "Living processes that serve no lane: `clock`, `feed`, `web`; `tidegate run` is both clock and feed.",
    "0: runbook process-missing.",
)
_metric(
    _G,
    "feed_lag_seconds",
    "",
    "seconds",
    "How far the feed is behind the changes of users.",
    "Runbook feed-behind.",
)
_metric(_G, "process_memory_bytes", "process", "bytes", "Resident memory of all processes of a kind.")
_metric(
    _G,
    "clock_skew_seconds",
    "clock",
    "seconds",
    "How far a clock is from MongoDB's: `broker` (Redis), `this` (the process that answers), and each kind of process.",
    "Runbook clock-skew.",
)

# stores
_metric(_G, "store_ping_seconds", "store", "seconds", "One round trip to a store, just now.")
_metric(_G, "store_calls_per_second", "store", "calls a second", "Named queries of all processes, over 10 s.")
_metric(_G, "store_failed_calls_per_second", "store", "calls a second", "Those that raised an error.")
_metric(
    _H,
    "query_seconds",
    "query",
    "seconds",
    "How long each named query took, in all processes (`tidegate stats` names the worst case and its campaign).",
    "`tidegate stats`, then `tidegate check --indexes`.",
)
_metric(_C, "query_failed", "query", "calls", "Named queries that raised an error.")
_metric(_C, "query_documents", "query", "documents", "Documents that named queries returned.")
_metric(_C, "cache_users_read", "", "users", "Users that readers got from the user cache, loaded or not.")
_metric(_C, "cache_users_loaded", "", "users", "Those of them that had to be loaded from MongoDB first.")
_metric(
    _G,
    "cache_hit_ratio",
    "",
    "0 to 1",
    "The share of users that came from the user cache, since the metrics are kept.",
    "Low: the cache is too small, or was emptied.",
)

# deliveries and campaigns, from the tallies
_metric(
    _G,
    "deliveries",
    "workspace channel outcome",
    "messages",
    "Messages by state, exactly: `sent`, `failed`, `unknown`, `skipped`, `queued`, `attempting`. A gauge, because a "
    "replay takes failures back.",
    "`unknown` or `failed` rising: runbook deliveries-failing.",
)
_metric(_G, "enrolments", "workspace state", "enrolments", "Enrolments, exactly: `active` or `exited`.")
_metric(_G, "holdout", "workspace", "enrolments", "Enrolments in a holdout, exactly.")
_metric(_G, "conversions", "workspace arm", "enrolments", "Conversions, exactly: `treated` or `holdout`.")
_metric(
    _G,
    "tally_age_seconds",
    "",
    "seconds",
    "The age of the oldest exact count of a campaign that may still change.",
    "Counting gives way to the gate, or there are many enrolments: the counts above are that old.",
)
_metric(
    _G,
    "unfit_campaigns",
    "",
    "campaigns",
    "Campaigns whose counts do not add up. Must be 0.",
    "Runbook numbers-do-not-add-up.",
)
_metric(_G, "campaigns", "state", "campaigns", "Campaigns by state.")
_metric(
    _G,
    "campaign_work_seconds",
    "workspace campaign",
    "seconds",
    "What a campaign's ended slices cost: seconds that workers held them. The 20 dearest that still run; the rest is "
    "`other`. A gauge, because a campaign moves between both.",
    "`tidegate stats` says which queries they run.",
)
_metric(_G, "campaign_users_evaluated", "workspace campaign", "users", "Users that these slices evaluated.")
_metric(_G, "campaign_messages_sent", "workspace campaign", "messages", "Messages that these slices sent.")
_metric(
    _G,
    "channel_deliveries_per_second",
    "channel outcome",
    "messages a second",
    "Messages that ended or were put off in the last 10 s: `sent`, `retried`, `failed`, `unknown`.",
    "`failed` or `retried`: runbook deliveries-failing.",
)
_metric(_G, "channel_limit_per_second", "channel", "messages a second", "The rate that the policies allow.")

# lateness and open work
_metric(
    _G,
    "late_campaigns",
    "reason",
    "campaigns",
    "Campaigns that should have sent or decided by now and have not, by the reason.",
    "Runbook campaigns-late.",
)
_metric(_G, "late_seconds", "reason", "seconds", "How far the latest of them is behind.")
_metric(
    _G,
    "open_work",
    "kind",
    "0 or 1",
    "Whether there is open work: `runs`, `deliveries`, `due` enrolments, `rechecks` (changed users).",
)

# the gate
_metric(
    _G,
    "gate_state",
    "state",
    "0 or 1",
    "Which state MongoDB's gate is in: `open` (no limit), `limited`, or `closed` (no bulk work begins).",
    "`closed`: runbook gate-closed.",
)
_metric(_G, "gate_limit", "", "operations at a time", "The limit in force; absent while the gate is open.")
_metric(_G, "gate_used", "", "operations at a time", "What bulk work takes of MongoDB now.")
_metric(_G, "gate_since_seconds", "", "seconds", "How long the automatic limit has been what it is.")
_metric(_G, "gate_held", "", "0 or 1", "Whether a person has set the gate by hand.")
_metric(_G, "gate_probe_seconds", "percentile", "seconds", "MongoDB's latency as the gate's probes measure it.")

_metric(_G, "scrape_seconds", "", "seconds", "How long it took to read all this.")


def table() -> str:
    """Return the table of all metrics as Markdown."""
    lines = ["| metric | type | labels | unit | meaning | a high value |", "|---|---|---|---|---|---|"]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.sample}`", metric.kind.value, labels, metric.unit, metric.meaning, metric.high)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_sample(name: str) -> MetricType | None:
    """Return the metric to which a sample of this name belongs (`..._bucket`, `..._total`); None if there is none."""
    for ending in ("", "_total", "_bucket", "_count", "_sum"):
        metric = METRICS.get(name.removesuffix(ending)) if ending else METRICS.get(name)
        if metric is not None and (not ending or name.endswith(ending)):
            return metric
    return None


Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of its row."""

BEGIN: Final = "<!-- the table below is written by `python -m engine.telemetry.metric_types` -->"
END: Final = "<!-- end of the table -->"


def page(text: str) -> str:
    """Return the page `text` with its table written anew. Raises `ValueError` if its marks are missing."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError("docs/metrics.md has lost the marks of its table")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.stdout.write(page(Path("docs/metrics.md").read_text(encoding="utf-8")))
