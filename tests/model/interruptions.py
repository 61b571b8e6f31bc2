"""Interrupt the engine at failpoints and before writes to the campaign, and stop dead threads from writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import current_thread
from typing import Any

from engine import failpoints
from engine.campaign import compiled as compiling
from engine.campaign.load import LoadedCampaign, campaign_from_spec
from engine.catalogue.catalogue import Catalogue
from engine.pipeline.campaigns import compiled_cache
from engine.pipeline.delivery.send_window import WindowSender
from engine.pipeline.evaluation.evaluate import Evaluator, Origin
from engine.predicate.compiled import CompiledPredicate, compile_predicate
from engine.predicate.tree import Tree
from engine.stores.mongo.campaigns import Campaigns
from tests.model.memory_services import Killed
from tests.model.memory_world import MemoryWorld


def harden(monkeypatch: Any, world: Callable[[], MemoryWorld]) -> None:
    """Send failpoint signals to the current world, and make a dead thread settle nothing as it unwinds."""
    monkeypatch.setattr(failpoints.os, "kill", lambda pid, number: world().signal(pid, number))
    catch_up = WindowSender.catch_up

    def alive(sending: WindowSender) -> None:
        if current_thread() in world().dead:
            raise Killed
        catch_up(sending)

    monkeypatch.setattr(WindowSender, "catch_up", alive)
    record = Evaluator.record

    def evaluated(evaluator: Evaluator, campaign: Any, origin: Origin, judged: Any, decisions: Any, **more: Any) -> Any:
        if "/look/" in origin.id:
            failpoints.passage("slice.decided")  # an evaluation of changed users can be overtaken here, as a slice can
        return record(evaluator, campaign, origin, judged, decisions, **more)

    monkeypatch.setattr(Evaluator, "record", evaluated)
    for name in ("apply", "move", "evaluated"):
        monkeypatch.setattr(Campaigns, name, _overtaken(getattr(Campaigns, name), world))


def _overtaken(write: Callable[..., Any], world: Callable[[], MemoryWorld]) -> Callable[..., Any]:
    """Wrap a write to the campaign so that another action can run just before it."""

    def overtaken(*args: Any, **more: Any) -> Any:
        act, world().before = world().before, None
        if act is not None:
            act()
        return write(*args, **more)

    return overtaken


def remember(monkeypatch: Any) -> None:
    """Load each file and compile each predicate once for all sequences: that is half of a sequence's cost."""
    loaded: dict[str, LoadedCampaign] = {}
    compiled: dict[tuple[str, bool], CompiledPredicate] = {}

    def from_spec(spec: Mapping[str, object], catalogue: Catalogue) -> LoadedCampaign:
        key = repr(spec)
        if key not in loaded:
            loaded[key] = campaign_from_spec(spec, catalogue)
        return loaded[key]

    def predicate(tree: Tree, catalogue: Catalogue, *, summaries: bool = True) -> CompiledPredicate:
        key = repr(tree), summaries
        if key not in compiled:
            compiled[key] = compile_predicate(tree, catalogue, summaries=summaries)
        return compiled[key]

    monkeypatch.setattr(compiled_cache, "campaign_from_spec", from_spec)
    monkeypatch.setattr(compiling, "compile_predicate", predicate)
