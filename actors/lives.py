"""Whose hands a message is in: broker ids that tell a process, so that what a dead one took can be put back at once.

Dramatiq knows a process by a random id and takes it for dead when its heart has not beaten for a while (here 15 s). An
id of ours says where the process lives, its pid and its birth; so whoever starts on the same machine *knows* that it is
dead, and need not wait. Of processes elsewhere nothing is known, and the heartbeat decides.
"""

from __future__ import annotations

import uuid
from typing import Final

from engine.births import Born, here, myself

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
"""As Dramatiq's own maintenance does it, but to the front: these messages have waited already."""

_SEPARATOR: Final = "|"


def new_id() -> str:
    """The broker id of this process, of which it may have several."""
    me = myself()
    return _SEPARATOR.join((here(), str(me.pid), me.birth, uuid.uuid4().hex))


def is_known_dead(broker_id: str) -> bool:
    """Whether the process of this id lived here and is over; False where nothing is known."""
    parts = broker_id.split(_SEPARATOR)
    if len(parts) != 4 or parts[0] != here() or not parts[1].isdecimal():
        return False
    return not Born(int(parts[1]), parts[2]).alive
