"""The Lua scripts of the user cache. Each runs atomically, so nobody sees a half-written bucket.

They use a bucket, its load lease and the change counter of one workspace:

    bucket     hash     user suffix -> packed row, "" -> "": see `layout`             7 days
    lease      string   the token of the process that loads the bucket                20 seconds
    changes    string   a number, raised by every refreshed row                       no expiry

The counter begins at the server's time in microseconds, so a counter that was lost never returns to an earlier value. A
server with full memory that evicts nothing refuses a script's first growing write. It therefore refuses `lease` and
`store`. `refresh` and `drop` begin with a deletion and succeed, so cached data stays correct.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from hashlib import sha1
from typing import Final

from engine.clock import millis

BUCKET_LIFETIME: Final = timedelta(days=7)
"""Lifetime of a bucket after its load; by then nobody reads an epoch that has ended."""

LEASE_LIFETIME: Final = timedelta(seconds=20)
"""Lifetime of a load lease. Reading a range of some buckets takes milliseconds; a slower loader may not store its
result."""


@dataclass(frozen=True)
class Script:
    """A Lua script, called by its digest."""

    text: str

    @cached_property
    def digest(self) -> bytes:
        """The digest by which EVALSHA calls the script."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest().encode()

    def call(self, keys: list[bytes], arguments: list[bytes]) -> tuple[bytes, ...]:
        """Return the command that runs the script."""
        return (b"EVALSHA", self.digest, b"%d" % len(keys), *keys, *arguments)

    def load(self) -> tuple[bytes, ...]:
        """Return the command that loads the script into the server."""
        return (b"SCRIPT", b"LOAD", self.text.encode())


LEASE: Final = Script("""
-- lease: keys = {lease, ...}, args = {token, lifetime in ms}
-- takes each lease that nobody has; answers 1 or 0 for each
local taken = {}
for place, lease in ipairs(KEYS) do
    taken[place] = redis.call("set", lease, ARGV[1], "nx", "px", ARGV[2]) and 1 or 0
end
return taken
""")

STORE: Final = Script("""
-- store: keys = {bucket, lease}, args = {token, lifetime in ms, field, value, field, value, ...}
-- writes a whole bucket if the lease is still there: a refresh since then has removed it; answers 1 or 0
-- a bucket that is there was stored after we had looked: ours is not needed, and the lease must not outlive us
if redis.call("get", KEYS[2]) ~= ARGV[1] then
    return 0
end
if redis.call("exists", KEYS[1]) == 1 then
    redis.call("del", KEYS[2])
    return 0
end
for start = 3, #ARGV, 1000 do
    redis.call("hset", KEYS[1], unpack(ARGV, start, math.min(start + 999, #ARGV)))
end
redis.call("pexpire", KEYS[1], ARGV[2])
redis.call("del", KEYS[2])
return 1
""")

_RAISE: Final = """
if redis.call("incr", KEYS[3]) == 1 then
    local now = redis.call("time")
    redis.call("set", KEYS[3], now[1] .. string.format("%06d", now[2]))
end
"""

REFRESH: Final = Script(
    """
-- refresh: keys = {bucket, lease, changes}, args = {field, value, revision}
-- voids the lease: who reads now has read older data. Then writes the row if the bucket is there and has none or an
-- older one; never makes a bucket. Answers {0 no bucket, 1 not newer, 2 written; leases voided}
local voided = redis.call("del", KEYS[2])
"""
    + _RAISE
    + """
if redis.call("exists", KEYS[1]) == 0 then
    return {0, voided}
end
local old = redis.call("hget", KEYS[1], ARGV[1])
if old then
    -- an array of up to 15 elements has a head of one byte, else of three; then come key and revision
    local at = old:byte(1) < 0xa0 and 1 or 3
    local fine, _, _, revision = pcall(cmsgpack.unpack_limit, old, 2, at)
    if fine and type(revision) == "number" and revision >= tonumber(ARGV[3]) then
        return {1, voided}
    end
end
redis.call("hset", KEYS[1], ARGV[1], ARGV[2])
return {2, voided}
"""
)

DROP: Final = Script(
    """
-- drop: keys = {bucket, lease, changes}, args = {}
-- for a user without a revision to compare (its document is gone): the next reader loads the bucket anew.
-- Answers as refresh does
redis.call("del", KEYS[1])
local voided = redis.call("del", KEYS[2])
"""
    + _RAISE
    + """
return {0, voided}
"""
)

LEASE_MS: Final = b"%d" % millis(LEASE_LIFETIME)
BUCKET_MS: Final = b"%d" % millis(BUCKET_LIFETIME)

BY_DIGEST: Final = {script.digest: script for script in (LEASE, STORE, REFRESH, DROP)}
"""The scripts by digest, to reload one that a server has forgotten."""
