"""The client of Elasticsearch, apart from the others: importing it takes a third of a worker's start."""

from __future__ import annotations

from elastic_transport.client_utils import DEFAULT
from elasticsearch import Elasticsearch


def elastic_client(url: str, *, api_key: str | None = None, ca_certificate: str | None = None) -> Elasticsearch:
    """A client of `url` with its own limits: 10 s a request, two retries on a broken connection or a 429."""
    return Elasticsearch(
        url,
        api_key=api_key or None,
        ca_certs=ca_certificate if ca_certificate else DEFAULT,
        request_timeout=10,
        max_retries=2,
        retry_on_timeout=False,
        retry_on_status=(429, 502, 503, 504),
    )
