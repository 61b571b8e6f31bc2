"""Document keys, ordered by a 32-bit hash of the user id, so that every store reads a slice with one range scan.

A *user suffix* is `hhhhhhhh/u`: eight hex digits of the layout hash and the escaped user id. Every key that belongs to
a user contains it (`w/h/u`, `w/c/h/u/entry`, ...), so the same hash range selects users, enrolments, events and list
members.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from itertools import pairwise
from typing import Final
from urllib.parse import quote, unquote

HASH_SPACE: Final = 1 << 32
HIGHEST: Final = "g"
"""Sorts after every user suffix, because hex digits end at `f`."""

AFTER: Final = "\0"
"""Append this to a suffix to get the bound just after it."""

_SAFE: Final = "@:+-_.~ ,;=!*()'"
_PLAIN: Final = re.compile(r"[A-Za-z0-9@:+_.~ ,;=!*()'-]*").fullmatch
"""Matches an id that needs no escaping, as nearly every id; four times as fast as calling `quote`."""


def layout_hash(user_id: str) -> str:
    """Return the 32-bit layout hash of a user id as eight hex digits, as in keys; uniform, and never used for arms."""
    return blake2b(user_id.encode(), digest_size=4).hexdigest()


def hash_prefix(position: int) -> str:
    """Return the suffix bound of a position in the hash space, 0 to 2^32; 2^32 gives `HIGHEST`."""
    return f"{position:08x}" if position < HASH_SPACE else HIGHEST


def escape(user_id: str) -> str:
    """Percent-encode `/`, `%` and anything that is not printable ASCII, so that any user id is safe in a key."""
    return user_id if _PLAIN(user_id) else quote(user_id, safe=_SAFE)


def unescape(text: str) -> str:
    """Reverse `escape`."""
    return unquote(text) if "%" in text else text


def user_suffix(user_id: str) -> str:
    """Return `h/u`, the part that all keys of one user share."""
    return f"{layout_hash(user_id)}/{escape(user_id)}"


def user_key(workspace: str, user_id: str) -> str:
    """Return `w/h/u`, the `_id` of a user."""
    return f"{workspace}/{user_suffix(user_id)}"


def workspace_of(key: str) -> str:
    """Return the workspace of a document key; every key begins with it."""
    return key.partition("/")[0]


def suffix_of_user(key: str) -> str:
    """Return the suffix `h/u` of a user key `w/h/u`."""
    return key.split("/", 1)[1]


def hash_of(suffix: str) -> str:
    """Return the eight hex digits of a user suffix `h/u`."""
    return suffix.partition("/")[0]


def bound_behind(key: str) -> str:
    """Return the suffix bound just after a user key; a reader continues there."""
    return suffix_of_user(key) + AFTER


def user_id_of(key: str) -> str:
    """Return the user id of a user key `w/h/u`."""
    return unescape(key.rsplit("/", 1)[1])


def enrolment_prefix(workspace: str, campaign: str) -> str:
    """Return `w/c/`, the common prefix of a campaign's enrolments; `campaign` is the uid."""
    return f"{workspace}/{campaign}/"


def campaign_of(prefix: str) -> str:
    """Return the campaign uid of a prefix `w/c/`."""
    return prefix.split("/")[1]


def enrolment_id(workspace: str, campaign: str, suffix: str, entry: int) -> str:
    """Return `w/c/h/u/entry`, the `_id` of an enrolment; `entry` counts from 1 and has four digits."""
    return f"{workspace}/{campaign}/{suffix}/{entry:04d}"


def enrolment_ids(workspace: str, campaign: str, suffixes: Iterable[str], entry: int) -> list[str]:
    """Return the `enrolment_id` of each of `suffixes`, at a sixth of the cost."""
    head, tail = enrolment_prefix(workspace, campaign), f"/{entry:04d}"
    return [f"{head}{suffix}{tail}" for suffix in suffixes]


def suffix_of_enrolment(key: str) -> str:
    """Return the suffix `h/u` of an enrolment id `w/c/h/u/entry`."""
    return key.split("/", 2)[2].rsplit("/", 1)[0]


def user_of_enrolment(key: str) -> str:
    """Return the user key inside an enrolment id."""
    return f"{key.partition('/')[0]}/{suffix_of_enrolment(key)}"


def entry_of(key: str) -> int:
    """Return the entry number of an enrolment id `w/c/h/u/entry`."""
    return int(key.rsplit("/", 1)[1])


def run_id(workspace: str, campaign: str, kind: str, number: str) -> str:
    """Return `w/c/kind/number`, the `_id` of a run."""
    return f"{enrolment_prefix(workspace, campaign)}{kind}/{number}"


def slice_id(run: str, number: int) -> str:
    """Return `run/number`, the `_id` of a slice of a run; `number` counts from 0 and has four digits."""
    return f"{run}/{number:04d}"


def run_of_slice(key: str) -> str:
    """Return the id of the run to which the slice `key` belongs."""
    return key.rsplit("/", 1)[0]


def kind_of_run(run: str) -> str:
    """Return the kind of a run from its id."""
    return run.split("/", 3)[2]


def member_key(workspace: str, name: str, suffix: str) -> str:
    """Return `w/list/h/u`, the `_id` of a list member; the list name is escaped, so any name is safe."""
    return f"{workspace}/{escape(name)}/{suffix}"


def list_of_member(key: str) -> str:
    """Return the list name of a member key."""
    return unescape(key.split("/", 2)[1])


def is_user_key(text: str) -> bool:
    """Whether `text` is a user key; the hash distinguishes it from a user id that contains two slashes."""
    parts = text.split("/")
    return len(parts) == 3 and parts[1] == layout_hash(user_id_of(text))


def delivery_key(enrolment: str, message: str) -> str:
    """Return the idempotency key of one delivery: workspace, campaign, user, entry and message."""
    return f"{enrolment}/{message}"


def arm(campaign: str, purpose: str, user_id: str) -> float:
    """Place a user in [0, 1) for one purpose of one campaign (a holdout, a variant); the uid is the seed."""
    digest = blake2b("\0".join((campaign, purpose, user_id)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


def cut(pieces: int) -> list[tuple[str, str]]:
    """Cut the whole hash space into `pieces` adjacent ranges `[first, until)` of suffix bounds."""
    edges = [hash_prefix(HASH_SPACE * i // pieces) for i in range(pieces + 1)]
    return list(pairwise(edges))


def cut_range(first: str, until: str, pieces: int) -> list[tuple[str, str]]:
    """Cut the range `[first, until)` of suffix bounds into up to `pieces` adjacent ranges of equal hash space."""
    low, high = position_of(first), position_of(until)
    inner = {hash_prefix(low + (high - low) * i // pieces) for i in range(1, pieces)}
    edges = [first, *sorted(edge for edge in inner if first < edge < until), until]
    return list(pairwise(edges))


def position_of(bound: str) -> int:
    """Return the position of a suffix bound in the hash space, 0 to 2^32."""
    return HASH_SPACE if bound >= HIGHEST else int(bound.partition("/")[0][:8].ljust(8, "0") or "0", 16)
