"""The leases store keeps its own tests on the database in memory, so that the model may rely on it."""

from __future__ import annotations

from tests.integration.stores.mongo.test_named_leases import *  # noqa: F403
