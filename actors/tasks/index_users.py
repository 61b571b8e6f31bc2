"""Indexes changed users into Elasticsearch."""

from __future__ import annotations

from datetime import timedelta

from actors.registry import actor, application
from engine.query_metrics import working_on


@actor("index_users", queue="index", time_limit=timedelta(seconds=120), max_retries=8)
def index_users(request_id: str, in_turn: bool = False) -> None:
    """Process one stored request: index its users as MongoDB has them now.

    While mails go out, a request for a whole range waits until it is `in_turn`.
    """
    app = application()
    with app.failures.attempt("index"), working_on("", "", app.bulk_gate):
        app.search_indexer.run(request_id, in_turn=in_turn)
