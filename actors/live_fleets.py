"""Lets the fleets of a process follow the policies in force, and leave lanes to the living processes of others."""

from __future__ import annotations

from threading import Lock
from typing import Final

from actors.broker.broker import HardenedBroker
from actors.fleet import follow_policies, hand_over, lanes_given_up
from engine.app.app import App
from engine.decisions.routing import SUSPECT
from engine.policy.policyset import PolicySet
from engine.telemetry.events import emit

EVERYTHING: Final = "run"
"""The process of `tidegate run`, which runs every fleet but that of the suspects as threads."""


class LiveFleets:
    """The fleets of one process, on its broker.

    The watcher's thread and the heartbeat's call it. A lock keeps one from leaving a lane under policies that the other
    has just replaced.
    """

    def __init__(self, app: App, broker: HardenedBroker) -> None:
        self._app = app
        self._broker = broker
        self._lock = Lock()

    def follow(self, _new: PolicySet | None = None) -> None:
        """Follow the policies in force; safe to repeat."""
        with self._lock:
            policies = self._app.policies
            follow_policies(self._broker, policies.lanes, policies.fleets)

    def after_beat(self) -> None:
        """Follow what an edit during the start may have changed, then leave lanes; call it after each heartbeat.

        The heartbeats say which fleets live. Raises the outages of the stores.
        """
        self.follow()
        now = self._app.policies
        if lanes_given_up(self._broker, now.fleets).isdisjoint(now.lanes):
            return  # lanes that are gone from the policies are served on
        alive = {seen.process for seen in self._app.liveness.alive()}
        with self._lock:
            policies = self._app.policies
            if EVERYTHING in alive:
                alive |= {name for name, fleet in policies.fleets.items() if SUSPECT not in fleet.lanes}
            left = hand_over(self._broker, policies.lanes, policies.fleets, alive)
        for lane in left:
            emit("lane.left", process=self._app.hooks.process, lane=lane, policy=policies.version)
