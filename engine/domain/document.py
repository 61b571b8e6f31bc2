"""A document as drivers of databases give and take it."""

from __future__ import annotations

from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
"""Names to BSON values. Stores turn documents into what the domain names; rows of users stay as they are, for speed."""
