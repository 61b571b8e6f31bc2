"""The Elasticsearch client, in a module of its own because importing it takes a third of a worker's start-up time."""

from __future__ import annotations

from pathlib import Path

from elastic_transport.client_utils import DEFAULT
from elasticsearch import Elasticsearch

from engine.errors import WrongCall
from engine.service_addresses import search_address


def elastic_client(url: str, *, api_key: str | None = None, ca_certificate: str | None = None) -> Elasticsearch:
    """Create a client of `url` with explicit limits: 10 s a request, and two retries.

    It retries on a broken connection and on the statuses 429, 502, 503 and 504.

    Raises `WrongCall` if the address or the certificate cannot be read.
    """
    address = search_address("services.elastic_url", url)
    if ca_certificate is not None and not Path(ca_certificate).is_file():
        raise WrongCall(f"services.elastic_ca: there is no file {ca_certificate}", remedy="name the CA's PEM file")
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        problem = "services.elastic_api_key cannot be read: it contains a line break or an unprintable character"
        raise WrongCall(problem, remedy="give the key as Elasticsearch shows it (its field encoded), on one line")
    try:
        return Elasticsearch(
            address,
            api_key=api_key or None,
            ca_certs=ca_certificate if ca_certificate else DEFAULT,
            request_timeout=10,
            max_retries=2,
            retry_on_timeout=False,
            retry_on_status=(429, 502, 503, 504),
        )
    except (ValueError, TypeError, OSError) as error:
        remedy = "give either an API key or a user in the address, and a CA for https:// alone"
        raise WrongCall("services.elastic_url and its other settings do not fit together", remedy=remedy) from error
