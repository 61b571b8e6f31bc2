"""Keep the send rate of a channel for all workers: the generic cell rate algorithm (ITU-T I.371) in Redis.

Key: `tidegate:rate:CHANNEL`, a hash with the latest reservation: when it begins (`start`, µs by Redis's clock) and for
how many mails (`count`). The next reservation begins when these mails have had their time at the rate in force, so an
edit of the rate acts at once. Mails are spaced evenly, and no burst follows a pause. If Redis has lost the key, the
next reservation begins at the latest moment at which a lost one may have begun.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import redis
from redis.commands.core import Script

KEPT: Final = timedelta(hours=1)
"""How long Redis keeps a key after the mails of its last reservation have had their time."""

TAKE: Final = """
-- reserve: keys = {latest reservation}, args = {microseconds of a mail, mails, longest wait (us), key's life (ms)}
-- returns {1, wait} for a reservation that begins after `wait` microseconds, {0, wait} if that would be too long
local now = redis.call("time")
now = now[1] * 1000000 + now[2]
local longest = tonumber(ARGV[3])
local last = redis.call("hmget", KEYS[1], "start", "count")
local start = now + longest
if last[1] then
    start = math.max(now, last[1] + last[2] * ARGV[1])
end
if start - now > longest then
    return {0, start - now}
end
redis.call("hset", KEYS[1], "start", string.format("%.0f", start), "count", ARGV[2])
redis.call("pexpire", KEYS[1], ARGV[4])
return {1, start - now}
"""


class RedisSendRates:
    """Reserves sends for all processes of an installation."""

    def __init__(self, client: redis.Redis, namespace: str = "") -> None:
        self._client = client
        self._namespace = namespace

    @cached_property
    def _take(self) -> Script:
        return self._client.register_script(TAKE)

    def take(self, channel: str, count: int, per_second: float, longest: float) -> tuple[bool, float] | None:
        """Reserve `count` mails at a rate; return whether they are reserved, and the seconds until they may begin.

        A reservation never begins more than `longest` seconds ahead. If it would, nothing is reserved, and the seconds
        say when the mails could begin. Return None if Redis does not answer.
        """
        life = round((KEPT.total_seconds() + count / per_second) * 1000)
        args = [1e6 / per_second, count, round(longest * 1e6), life]
        try:
            reserved, wait = _numbers(self._take(keys=[f"{self._namespace}tidegate:rate:{channel}"], args=args))
        except redis.RedisError:
            return None
        return reserved == 1, wait / 1e6


def _numbers(reply: Any) -> tuple[int, int]:
    """Return the two numbers of the script's reply."""
    reserved, wait = reply
    return int(reserved), int(wait)
