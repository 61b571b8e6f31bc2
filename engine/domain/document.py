"""A document as database drivers accept and return it."""

from __future__ import annotations

from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
"""Maps names to BSON values. Stores convert documents to domain types; user rows stay documents, for speed."""
