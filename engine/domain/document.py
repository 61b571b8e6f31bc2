"""A document as database drivers accept and return it."""

from __future__ import annotations

from typing import Any, NewType, TypeAlias

Document: TypeAlias = dict[str, Any]
"""Maps names to BSON values. Stores convert documents to domain types; users stay documents, for speed."""

UserDocument = NewType("UserDocument", Document)
"""A user as stored, possibly with some fields only. Ports hand it over as it was read: a pass reads thousands a second.

`engine.catalogue` turns it into a row for decisions; `engine.stores.mongo.users` lists its fields.
"""
