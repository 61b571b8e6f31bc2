"""Random campaign files, in the reference's form and as authors write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from engine.clock import format_instant
from tests.model.memory_services import START
from tests.model.memory_world import NAME
from tests.model.reference import DAY, File, Message

USERS: Final = ("u0", "u1", "u2", "u3")
PLANS: Final = ("pro", "free")
MESSAGES: Final = (
    (Message("one"),),
    (Message("one"), Message("two", 5 * DAY)),
    (Message("one", DAY), Message("two", DAY)),
    (Message("one", 5 * DAY),),
    (Message("one", DAY), Message("two", 5 * DAY, "pro")),
    (Message("one"), Message("two", 5 * DAY), Message("three", 0, "pro")),
    (Message("two", 2 * DAY),),
)
FILES: Final = st.builds(
    File,
    audience=st.sampled_from(("pro", "pro", "free", "free", "all", "ordered", "vip")),
    unmatched=st.sampled_from((True, True, False)),
    exit_plan=st.sampled_from((None, None, None, "free")),
    goal_plan=st.sampled_from((None, None, None, "pro")),
    again=st.sampled_from((None, None, 2 * DAY)),
    ends=st.sampled_from((None, None, None, START + 3 * DAY)),
    messages=st.sampled_from(MESSAGES),
)


def spec(file: File, *, one_off: bool) -> dict[str, Any]:
    """Return the campaign file as an author writes it."""
    audiences: Mapping[str, Any] = {
        "all": {"all": []},
        "pro": {"plan": "pro"},
        "free": {"plan": "free"},
        "ordered": {"orders_count": {"gte": 1}},
        "vip": {"vip_until": {"within_next": "3d"}},
    }
    values: dict[str, Any] = {
        "campaign": NAME,
        "workspace": "shop",
        "kind": "one_off" if one_off else "continuous",
        "audience": audiences[file.audience],
        "exit": {"unmatched": file.unmatched, **({"when": {"plan": file.exit_plan}} if file.exit_plan else {})},
        "messages": [
            {
                "name": message.name,
                "channel": "email",
                "subject": message.name,
                "body": "Hello",
                "was": "none",
                **({"wait": f"{message.wait // 3_600_000}h"} if message.wait else {}),
                **({"when": {"plan": message.when}} if message.when else {}),
            }
            for message in file.messages
        ],
    }
    if file.goal_plan:
        values["goal"] = {"plan": file.goal_plan}
    if file.ends is not None:
        values["ends_at"] = format_instant(file.ends)
    if file.again is not None:
        values["entry"] = {"again_after": f"{file.again // DAY}d"}
    return values
