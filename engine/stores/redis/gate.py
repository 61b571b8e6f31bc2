"""The gate of a store, shared by all processes through Redis.

Keys: `tidegate:gate:STORE` (hash: `state`, `gauge`, `override`, each JSON), `tidegate:gate:STORE:members` (hash: the
time of its last report in ms and a JSON document by process), and `tidegate:gate:STORE:controller` (the process that
measures and decides, until it stops to report). Redis's clock judges all of them. If Redis loses them, the processes
continue with what they know, and the next controller writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import redis
from redis.commands.core import Script

from engine.clock import millis
from engine.domain.gate import GateState, GateView, Gauge, Hold, Member, Override

MEMBER_LIFE: Final = timedelta(seconds=5)
"""After this long without a report a process no longer counts."""

CONTROLLER_LIFE: Final = timedelta(seconds=2)
"""After this long without a report another process takes over the control."""

KEPT: Final = timedelta(days=7)
"""How long Redis keeps the limit of a gate that no process uses, so that the next campaign begins at it."""

BEAT: Final = """
-- keys = {state, members, controller}
-- args = {own id or "", own document, life of a member, of the controller (0: may not control), of all (ms)}
-- returns {1 if this process controls the gate, now (ms), state..., members...}
local time = redis.call("time")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local controls = 0
if ARGV[1] ~= "" then
    redis.call("hset", KEYS[2], ARGV[1], string.format("%.0f", now) .. " " .. ARGV[2])
    redis.call("pexpire", KEYS[2], ARGV[5])
    redis.call("pexpire", KEYS[1], ARGV[5])
    local holder = redis.call("get", KEYS[3])
    if tonumber(ARGV[4]) > 0 and (not holder or holder == ARGV[1]) then
        redis.call("set", KEYS[3], ARGV[1], "px", ARGV[4])
        controls = 1
    end
end
local living = {}
local all = redis.call("hgetall", KEYS[2])
for i = 1, #all, 2 do
    local at, document = string.match(all[i + 1], "^(%d+) (.*)$")
    if now - at > tonumber(ARGV[3]) then
        if ARGV[1] ~= "" then redis.call("hdel", KEYS[2], all[i]) end
    else
        table.insert(living, all[i])
        table.insert(living, document)
    end
end
return {controls, string.format("%.0f", now), redis.call("hgetall", KEYS[1]), living}
"""

DECIDE: Final = """
-- keys = {state, controller}; args = {own id, state, gauge}; returns 1 if this process still controls the gate
if redis.call("get", KEYS[2]) ~= ARGV[1] then return 0 end
redis.call("hset", KEYS[1], "state", ARGV[2], "gauge", ARGV[3])
return 1
"""

GONE: Final = """
-- keys = {members, controller}; args = {own id}
redis.call("hdel", KEYS[1], ARGV[1])
if redis.call("get", KEYS[2]) == ARGV[1] then redis.call("del", KEYS[2]) end
"""


class RedisGate:
    """The gate of one store, e.g. `mongodb`."""

    def __init__(self, client: redis.Redis, store: str, namespace: str = "") -> None:
        self._client = client
        self._state = f"{namespace}tidegate:gate:{store}"
        self._members = f"{self._state}:members"
        self._controller = f"{self._state}:controller"

    @cached_property
    def _beat(self) -> Script:
        return self._client.register_script(BEAT)

    @cached_property
    def _decide(self) -> Script:
        return self._client.register_script(DECIDE)

    @cached_property
    def _gone(self) -> Script:
        return self._client.register_script(GONE)

    def beat(self, member: Member, *, may_control: bool) -> GateView | None:
        """Report this process and return the gate, which one of those that may controls; None if Redis is away."""
        document = json.dumps({"process": member.process, "wanted": member.wanted, "used": member.used})
        return self._view(member.id, document, millis(CONTROLLER_LIFE) if may_control else 0)

    def view(self) -> GateView | None:
        """Return the gate without taking part; None if Redis does not answer."""
        return self._view("", "", 0)

    def decide(self, member: str, state: GateState, gauge: Gauge) -> bool:
        """Record the controller's decision; return False if another process controls the gate, or Redis is away."""
        args = [member, json.dumps(asdict(state)), json.dumps(asdict(gauge))]
        try:
            return bool(self._decide(keys=[self._state, self._controller], args=args))
        except redis.RedisError:
            return False

    def override(self, override: Override | None) -> bool:
        """Record a person's setting, or end it (None); return False if Redis does not answer."""
        try:
            if override is None:
                self._client.hdel(self._state, "override")
            else:
                self._client.hset(self._state, "override", json.dumps(asdict(override)))
                self._client.pexpire(self._state, millis(KEPT))
        except redis.RedisError:
            return False
        return True

    def gone(self, member: str) -> None:
        """Record that a process has ended; if Redis does not answer, its report expires."""
        try:
            self._gone(keys=[self._members, self._controller], args=[member])
        except redis.RedisError:
            return

    def _view(self, member: str, document: str, control: int) -> GateView | None:
        keys = [self._state, self._members, self._controller]
        args: list[str | int] = [member, document, millis(MEMBER_LIFE), control, millis(KEPT)]
        try:
            controls, now, state, members = _answer(self._beat(keys=keys, args=args))
        except redis.RedisError:
            return None
        override = Override(**json.loads(state["override"])) if "override" in state else None
        if override is not None:
            override = Override(Hold(override.hold), override.until, override.why, override.limit)
        return GateView(
            state=GateState(**json.loads(state["state"])) if "state" in state else None,
            override=override if override is not None and override.until > now else None,
            gauge=Gauge(**json.loads(state["gauge"])) if "gauge" in state else Gauge(),
            now=now,
            members=tuple(Member(id=one, **json.loads(told)) for one, told in sorted(members.items())),
            controls=controls,
        )


def _answer(reply: Any) -> tuple[bool, int, Mapping[str, str], Mapping[str, str]]:
    """Return the script's reply with texts: whether this process controls, now (ms), the state and the members."""
    controls, now, state, members = reply
    return controls == 1, int(now), _texts(state), _texts(members)


def _texts(flat: list[bytes]) -> dict[str, str]:
    texts = [one.decode() for one in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
