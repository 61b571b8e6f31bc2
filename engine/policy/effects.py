"""The effects of a policy edit: what moves, who serves what, and what only a restart brings into force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.policy.difference import Governed
from engine.policy.models import RESERVED
from engine.policy.policyset import PolicySet


@dataclass(frozen=True, slots=True)
class Moved:
    """A campaign that an edit gives another profile or lane; `before` and `after` are what governs it."""

    before: Governed
    after: Governed

    def __str__(self) -> str:
        was, now = self.before, self.after
        parts = [
            f"{what} {new} (was {old})"
            for what, old, new in (
                ("profile", was.profile, now.profile),
                ("decides in", was.lane, now.lane),
                ("delivers in", was.deliver_lane, now.deliver_lane),
            )
            if old != new
        ]
        return f"{now.workspace}/{now.campaign}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The fleets that serve a lane before and after an edit; empty for a lane that is not there."""

    lane: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        if not self.after:
            return f"lane {self.lane}: gone; its queued slices move to the lanes of their campaigns"
        if not self.before:
            return f"lane {self.lane}: new, served by {', '.join(self.after)}"
        return f"lane {self.lane}: served by {', '.join(self.after)} (was {', '.join(self.before)})"


def moved(before: Iterable[Governed], after: Iterable[Governed]) -> list[Moved]:
    """Return the campaigns whose profile or lanes differ; both iterables name the same campaigns in the same order."""
    return [
        Moved(old, new)
        for old, new in zip(before, after, strict=True)
        if (old.profile, old.lane, old.deliver_lane) != (new.profile, new.lane, new.deliver_lane)
    ]


def served(before: PolicySet, after: PolicySet) -> list[ServedBy]:
    """Return the lanes that other fleets serve after an edit, new and removed lanes included."""
    lanes = dict.fromkeys([*before.lanes, *after.lanes])
    changes = (ServedBy(lane, before.fleet_names(lane), after.fleet_names(lane)) for lane in lanes)
    return [change for change in changes if change.before != change.after]


def idle_fleets(policies: PolicySet, campaigns: Iterable[Governed]) -> list[str]:
    """Return the fleets that serve no lane of these campaigns and no lane of the engine's own."""
    used = {*RESERVED, *(lane for one in campaigns for lane in (one.lane, one.deliver_lane))}
    return [name for name, fleet in policies.fleets.items() if used.isdisjoint(fleet.lanes)]


def restarts(before: PolicySet, after: PolicySet) -> list[str]:
    """Return, in words, what of an edit no running process brings into force: new fleets, fleets gone, niceness."""
    told: list[str] = []
    for name, fleet in after.fleets.items():
        old = before.fleets.get(name)
        if old is None:
            told.append(
                f"the fleet {name} is new: add `{name}: tidegate worker {name}` to the Procfile, then restart "
                "`tidegate up` (`tidegate run` starts it at once)"
            )
        elif old.niceness != fleet.niceness:
            told.append(f"fleets.{name}.niceness: restart its processes")
    return told + [_gone(name) for name in before.fleets if name not in after.fleets]


def behind(started: PolicySet, now: PolicySet, fleets: Iterable[str], *, keeps_processes: bool = False) -> list[str]:
    """Return, in words, what a process that runs these fleets since `started` does not follow before a restart.

    `keeps_processes` is True under Dramatiq's own command, whose number of processes is fixed when it starts.
    """
    told: list[str] = []
    for name in fleets:
        fleet, old = now.fleets.get(name), started.fleets.get(name)
        if fleet is None:
            told.append(_gone(name))
        elif old is not None and old.niceness != fleet.niceness:
            told.append(f"fleets.{name}.niceness is {fleet.niceness}, the process runs with {old.niceness}: restart it")
        if fleet is not None and old is not None and keeps_processes and old.processes != fleet.processes:
            told.append(
                f"fleets.{name}.processes is {fleet.processes}, `tidegate worker {name} --dramatiq` runs "
                f"{old.processes}: restart it"
            )
    return told


def _gone(name: str) -> str:
    return (
        f"the fleet {name} is gone: its processes serve its lanes until a process of another fleet does; remove its "
        "line from the Procfile"
    )
