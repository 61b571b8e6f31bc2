"""A campaign's whole life against the reference: `TIDEGATE_MODEL_SEQUENCES` sequences, 1,000 by default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from engine.stores.mongo.campaigns import Campaigns
from engine.stores.mongo.enrolments import Enrolments
from tests.model.interruptions import harden, remember
from tests.model.machine import Campaign
from tests.model.memory_world import Installation, MemoryWorld
from tests.model.reference import DAY, File, Message, Wrong

SEQUENCES = os.environ.get("TIDEGATE_MODEL_SEQUENCES")
"""How many random sequences; without it 1,000 that are always the same, so that what fails can be repeated."""

STEPS = int(os.environ.get("TIDEGATE_MODEL_STEPS", "14"))

PRO = File("pro", messages=(Message("one", 5 * DAY),))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Campaign]]:
    """Return the state machine, with everything that its sequences interrupt in place."""
    worlds: list[MemoryWorld] = []

    def use(world: MemoryWorld) -> None:
        worlds[:] = [world]

    with pytest.MonkeyPatch.context() as patches:
        harden(patches, lambda: worlds[0])
        remember(patches)
        patches.setattr(Campaign, "shared", Installation(tmp_path_factory.mktemp("model")), raising=False)
        patches.setattr(Campaign, "using", staticmethod(use), raising=False)
        yield Campaign


@pytest.mark.long(seconds=40)
@pytest.mark.timeout(0 if SEQUENCES else 1_800)  # a minute on a quiet machine
def test_random_sequences_miss_no_user(machine: type[Campaign]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(SEQUENCES or 1_000),
            derandomize=SEQUENCES is None,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
            report_multiple_bugs=False,
            database=None,
        ),
    )


def crossed_by_a_change(campaign: Campaign) -> None:
    """Users change, and are evaluated, between a launch slice's read and its write."""
    campaign.launch()
    campaign.worker_dozes("slice.decided", 1)
    for user in ("u0", "u1", "u2"):
        campaign.user(user)
    campaign.go(3)
    campaign.worker_wakes(0, kill=False)


def changed_while_paused(campaign: Campaign) -> None:
    """A user changes while the campaign is paused; then the campaign is stopped."""
    campaign.launch()
    campaign.settle()
    campaign.pause()
    campaign.user("u0")
    campaign.go(1)
    campaign.stop()


def edited(campaign: Campaign) -> None:
    """Edit the audience."""
    campaign.launch()
    campaign.settle()
    campaign.edit(File("free", messages=PRO.messages))


def nothing(*arguments: object, **more: object) -> int:
    return 0


def unwanted(move: Callable[..., bool]) -> Callable[..., bool]:
    """Return a store method that drops the owed evaluations of a command."""

    def moved(*arguments: Any, **more: Any) -> bool:
        return move(*arguments, **{name: value for name, value in more.items() if not name.endswith("_wanted")})

    return moved


@pytest.mark.parametrize(
    ("happens", "store", "method", "fault"),
    [
        (crossed_by_a_change, Enrolments, "wake", nothing),
        (changed_while_paused, Campaigns, "move", unwanted(Campaigns.move)),
        (edited, Enrolments, "active", lambda *arguments: []),
    ],
    ids=["nobody is woken", "a resume owes nothing", "the edit's run finds nobody"],
)
def test_the_reference_detects_an_injected_fault(
    machine: type[Campaign],
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Campaign], None],
    store: type,
    method: str,
    fault: Callable[..., object],
) -> None:
    def come_to_rest() -> None:
        campaign = machine()
        campaign.begin(plans=["pro"] * 3, file=PRO, one_off=False, launched=False, settled=False)
        happens(campaign)
        campaign.settle()

    come_to_rest()
    monkeypatch.setattr(store, method, fault)
    with pytest.raises(Wrong, match="is in"):
        come_to_rest()
