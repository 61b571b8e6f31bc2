"""The conformance table: (predicate, users, matching users), worked out by hand from `docs/predicates.md`.

Each group has its own few people in its own workspace. A row is a predicate in YAML and the names, in any order. The
tests also evaluate `none: [predicate]` and expect everybody else.
"""

from __future__ import annotations

from tests.conformance import table_events, table_shapes, table_values
from tests.conformance.rows import Group

GROUPS: dict[str, Group] = {**table_values.GROUPS, **table_shapes.GROUPS, **table_events.GROUPS}
