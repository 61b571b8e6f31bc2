"""Runs are created once, change state by the table, and are listed by campaign."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.domain.lifecycle import RunState
from engine.domain.work import Run, RunKind
from engine.errors import IllegalTransition
from engine.stores.mongo.runs import INDEXES, Runs
from tests.support.store_threads import together

RUN = Run("shop/c1/pass/5", "shop", "c1", RunKind.PASS, 5, RunState.PLANNING)


@pytest.fixture
def runs(database: Database[dict[str, Any]]) -> Runs:
    database.runs.create_indexes(list(INDEXES))
    return Runs(database)


def decided(runs: Runs, run: Run) -> Run:
    runs.add(run)
    running = replace(run, state=RunState.RUNNING)
    assert runs.move(run, RunState.RUNNING)
    assert runs.move(running, RunState.DECIDED, {"users": 3})
    return replace(run, state=RunState.DECIDED)


def test_a_run_is_read_back_as_it_was_written(runs: Runs) -> None:
    assert runs.add(RUN)
    assert runs.get(RUN.id) == RUN
    assert runs.get("nowhere") is None


def test_an_existing_run_is_not_created_again(runs: Runs) -> None:
    decided(runs, RUN)
    assert not runs.add(RUN)
    stored = runs.get(RUN.id)
    assert stored is not None
    assert stored.state is RunState.DECIDED


def test_concurrent_plans_create_one_run(runs: Runs) -> None:
    assert sum(together(8, lambda _: runs.add(RUN))) == 1


def test_a_run_changes_state_once_from_the_state_read(runs: Runs) -> None:
    runs.add(RUN)
    assert sum(together(8, lambda _: runs.move(RUN, RunState.RUNNING))) == 1
    assert not runs.move(RUN, RunState.RUNNING)


def test_a_transition_outside_the_table_is_refused(runs: Runs) -> None:
    runs.add(RUN)
    with pytest.raises(IllegalTransition, match="planning does not lead to decided"):
        runs.move(RUN, RunState.DECIDED)


def test_a_decided_run_keeps_its_results_and_is_no_longer_undecided(
    runs: Runs, database: Database[dict[str, Any]]
) -> None:
    other = replace(RUN, id="shop/c2/pass/5", campaign="c2")
    runs.add(other)
    decided(runs, RUN)
    assert runs.undecided() == [other]
    assert runs.undecided(["c1"]) == []
    document = database.runs.find_one({"_id": RUN.id})
    assert document is not None
    assert document["results"] == {"users": 3}


def test_the_launch_is_decided_when_its_run_is(runs: Runs) -> None:
    launch = replace(RUN, id="shop/c1/launch/1", kind=RunKind.LAUNCH)
    assert not runs.launch_decided("c1")
    runs.add(launch)
    assert not runs.launch_decided("c1")
    runs.move(launch, RunState.RUNNING)
    runs.move(replace(launch, state=RunState.RUNNING), RunState.DECIDED)
    assert runs.launch_decided("c1")


def test_runs_are_counted_by_kind_and_moment(runs: Runs) -> None:
    for number, as_of in enumerate((5, 5, 6)):
        runs.add(replace(RUN, id=f"due/{number}", kind=RunKind.DUE, as_of=as_of))
    assert [runs.count("c1", RunKind.DUE, as_of) for as_of in (5, 6, 7)] == [2, 1, 0]
    assert runs.count("c1", RunKind.PASS, 5) == 0
    assert runs.count_all() == 3


def test_the_latest_runs_of_a_campaign_are_listed_first(runs: Runs) -> None:
    for as_of in (5, 7, 6):
        runs.add(replace(RUN, id=f"pass/{as_of}", as_of=as_of))
    assert [run.as_of for run in runs.of_campaign("c1", 2)] == [7, 6]


def test_ended_runs_expire_except_launches(runs: Runs) -> None:
    launch = replace(RUN, id="shop/c1/launch/1", kind=RunKind.LAUNCH)
    undecided = replace(RUN, id="shop/c1/pass/6", as_of=6)
    decided(runs, RUN)
    decided(runs, launch)
    runs.add(undecided)
    assert runs.forget_ended(timedelta(hours=1)) == 0
    assert runs.forget_ended(timedelta(seconds=-1)) == 1
    assert runs.get(RUN.id) is None
    assert runs.launch_decided("c1")
    assert runs.undecided() == [undecided]


def test_the_cost_of_runs_is_summed_by_inactivity_window_without_launches(runs: Runs) -> None:
    day = 86_400_000
    for number, (kind, window, policy, results) in enumerate(
        [
            (RunKind.LAUNCH, 45, "a", {"users": 1_000, "chosen": 900}),
            (RunKind.DUE, 45, "a", {"users": 30, "chosen": 2, "holdout": 1}),
            (RunKind.PASS, 45, "b", {"users": 10}),
            (RunKind.DUE, 30, "c", {"users": 8, "chosen": 4}),
            (RunKind.DUE, None, None, {"users": 5}),
        ]
    ):
        run = replace(RUN, id=f"r{number}", kind=kind, as_of=number, inactivity=window and window * day, policy=policy)
        runs.add(run)
        runs.move(run, RunState.RUNNING)
        runs.move(replace(run, state=RunState.RUNNING), RunState.DECIDED, results)
    before, after = runs.costs_by_window(["c1"])["c1"]
    assert (before.inactivity.days, before.policy, before.since, before.runs) == (45, "b", 1, 2)
    assert (before.evaluated, before.chosen, before.each) == (40, 3, 40 / 3)
    assert (after.inactivity.days, after.policy, after.each) == (30, "c", 2.0)
    assert runs.costs_by_window(["c2"]) == {}
