"""Broker ids that identify a process, so that the messages of a dead process can be put back at once.

Dramatiq identifies a process by a random id and declares it dead after some time without a heartbeat (here 15 s). Our
ids contain the machine, the pid and the start time of the process. A process that starts on the same machine therefore
*knows* that the old one is dead and need not wait. For processes on other machines the heartbeat decides.
"""

from __future__ import annotations

import uuid
from typing import Final

from engine.process_identity import Born, here, myself

PUT_BACK: Final = """
-- put back: keys = {acks, messages, queue}
-- acks      set of ids that the dead process held
-- messages  hash id -> message; an id that is not there was acknowledged
-- queue     list of ids that wait
local taken = redis.call("smembers", KEYS[1])
redis.call("del", KEYS[1])
for _, id in ipairs(taken) do
    if redis.call("hexists", KEYS[2], id) > 0 then
        redis.call("lpush", KEYS[3], id)
    end
end
return #taken
"""
"""Like Dramatiq's own maintenance, but to the front of the queue: these messages have waited already."""

_SEPARATOR: Final = "|"


def new_id() -> str:
    """Return a new broker id for this process; a process may have several."""
    me = myself()
    return _SEPARATOR.join((here(), str(me.pid), me.birth, uuid.uuid4().hex))


def is_known_dead(broker_id: str) -> bool:
    """Return whether the process of this id ran on this machine and has ended; False if unknown."""
    parts = broker_id.split(_SEPARATOR)
    if len(parts) != 4 or parts[0] != here() or not parts[1].isdecimal():
        return False
    return not Born(int(parts[1]), parts[2]).alive
