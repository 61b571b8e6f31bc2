"""The users store keeps its own tests on the database in memory, so that the model may rely on it."""

from __future__ import annotations

from tests.integration.stores.mongo.test_users import *  # noqa: F403

del test_a_connection_that_breaks_again_and_again_is_an_error  # noqa: F821 - it cuts a real connection
del test_updates_whose_answer_was_lost_are_retried_and_written_once  # noqa: F821 - it cuts a real connection
