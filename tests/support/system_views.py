"""Pictures of an installation for tests: one that is well, with whatever a test changes."""

from __future__ import annotations

from typing import Any

from engine.domain.system_view import (
    ChannelNode,
    Edge,
    FleetNode,
    LaneNode,
    Level,
    ProcessNode,
    ProcessReport,
    ProducerNode,
    StoreNode,
    SystemView,
    Times,
    Verdict,
)

NOW = 1_796_000_000_000
FINE = Verdict(Level.FINE)
WAITS = Times(12, 0.02, 0.4, 1.2, 2.5, "shop/winback", NOW - 5_000)


def lane(name: str = "fast", verdict: Verdict = FINE, **more: Any) -> LaneNode:
    """Return a lane with five free slices and one in work."""
    facts: dict[str, Any] = {
        "kind": "decide",
        "ready": 2,
        "delayed": 0,
        "taken": 1,
        "dead": 0,
        "slices": 5,
        "held": 1,
        "oldest": 3.25,
        "rate": 1.5,
        "waits": WAITS,
        "works": Times(),
        "time_limit": 60.0,
        "fleets": ("fast",),
    }
    return LaneNode(name=name, verdict=verdict, **{**facts, **more})


def process(kind: str = "fast", **rates: float) -> ProcessNode:
    """Return a process of a fleet."""
    report = ProcessReport(4, 2, 80 * 2**20, {name.replace("__", "."): rate for name, rate in rates.items()})
    return ProcessNode(f"host:1:{kind}", kind, ("fast",), "2026-12-01T10:00:00+00:00", 0.5, report)


def system_view(**changes: Any) -> SystemView:
    """Return the picture of a small installation at work."""
    facts: dict[str, Any] = {
        "at": NOW,
        "lanes": (lane(),),
        "fleets": (FleetNode("fast", ("fast",), 1, 4, 2, (process(users__fast=120.0),), FINE),),
        "producers": (ProducerNode("clock", (process("clock"),), 0.0, None, FINE),),
        "stores": (StoreNode("mongodb", "127.0.0.1:27017", 0.0008, 310.0, 0.0, WAITS, FINE),),
        "channels": (ChannelNode("email", "smtp", {"sent": 85.0}, 100.0, FINE),),
        "edges": (
            Edge("producer/clock", "lane/fast", 1.5, "slices"),
            Edge("lane/fast", "fleet/fast", 1.5, "slices"),
            Edge("fleet/fast", "store/mongodb", 310.0, "calls"),
            Edge("fleet/fast", "channel/email", 85.0, "deliveries"),
            Edge("producer/clock", "store/mongodb", 12.0, "calls"),
        ),
        "gate": None,
        "verdict": Verdict(Level.FINE, "all is well"),
        "policy": "0123456789ab",
        "campaigns": {"live": 2, "finished": 7},
    }
    return SystemView(**{**facts, **changes})
