"""The log search: an Elasticsearch data stream that stores log lines, finds them, and deletes them by age.

Ids make repeated writes harmless within one backing index; `tidy` rolls over only when nothing can be repeated any
more. It deletes old backing indices whole, so it needs neither index lifecycle management nor delete-by-query (which
are not always available).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.resources.abc import Traversable
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Final

import orjson
from elasticsearch import ApiError, Elasticsearch, NotFoundError, TransportError

from engine.clock import Clock, millis
from engine.domain.log_documents import Document, Taken, lines_in, unbundled
from engine.errors import OperatorError, ServiceUnreachable
from engine.service_addresses import search_address
from engine.shipped import shipped

STREAM: Final = "logs-tidegate-default"
TEMPLATE: Final = shipped("conf/index-templates/logs.json")
_TEMPLATE_NAME: Final = "tidegate-logs"
_REQUEST_SECONDS: Final = 10.0
_WAIT: Final = frozenset({429, 502, 503, 504})
"""Statuses that pass without intervention: too busy, or a node is restarting."""
_MOST: Final = 10_000
"""Maximum number of documents of one search, as Elasticsearch allows."""
_PAGE: Final = 250
"""Documents read at once: a bundle is 20 kB."""
_TIDY_EVERY: Final = timedelta(minutes=10)
"""Rolling over and deleting are daily work; more frequent checks only cost requests."""


def open_client(url: str, *, api_key: str | None = None, ca: Path | None = None) -> Elasticsearch:
    """Create a client for the log search with explicit timeouts and no retries of its own (the shipper retries)."""
    given: dict[str, Any] = {"ca_certs": str(ca)} if ca else {}
    url = search_address("services.elastic_url", url)
    return Elasticsearch(url, api_key=api_key, request_timeout=_REQUEST_SECONDS, max_retries=0, **given)


class LogIndex:
    """The data stream of log lines. Every method raises `ServiceUnreachable` while the log search is away."""

    def __init__(
        self,
        client: Elasticsearch,
        clock: Clock,
        *,
        stream: str = STREAM,
        template: Traversable = TEMPLATE,
        keep: timedelta | None = timedelta(days=30),
        roll_after: timedelta = timedelta(days=1),
    ) -> None:
        """Keep lines for `keep` (None: for ever), in backing indices that cover `roll_after` each."""
        self._client = client.options(request_timeout=_REQUEST_SECONDS, max_retries=0)
        self._clock, self._stream, self._template = clock, stream, template
        self._keep, self._roll_after = keep, roll_after
        self._tidied: float | None = None

    def ensure(self) -> None:
        """Install the index template from which the first line creates the stream; safe to repeat.

        Raises `OperatorError` if Elasticsearch does not allow it.
        """
        body = orjson.loads(self._template.read_bytes())
        name = _TEMPLATE_NAME
        if self._stream != STREAM:
            # Other streams rely on the shared template, so a stream of another name gets a template of its own.
            name, body["index_patterns"] = f"{self._stream}-template", [self._stream]
        with _reaching("ensure the log stream"):
            self._client.indices.put_index_template(name=name, **body)

    def create(self, documents: Sequence[Document]) -> Taken:
        """Add the documents whose ids are new; a document that already exists counts as accepted.

        Documents that can never be accepted (they contradict a mapping) are returned as refused.
        """
        operations: list[bytes] = []
        for document in documents:
            operations += (b'{"create":{"_id":"%s"}}' % document.id.encode(), document.raw)
        with _reaching("take log lines"):
            answer = self._client.bulk(
                index=self._stream,
                operations=_raw(operations),
                filter_path="errors,items.*.status,items.*._id,items.*.error",
            )
        refused: dict[str, str] = {}
        present: set[str] = set()
        for item in answer.get("items", ()) if answer["errors"] else ():
            created: Mapping[str, Any] = item["create"]
            if created["status"] in _WAIT:
                raise ServiceUnreachable(f"the log search is busy ({created['status']})")
            if created["status"] == 409:
                present.add(created["_id"])
            elif created["status"] >= 400:
                refused[created["_id"]] = str(created["error"].get("type", "refused"))
        return Taken(
            refused, self._short([document for document in documents if document.lines > 1 and document.id in present])
        )

    def _short(self, bundles: Sequence[Document]) -> dict[str, int]:
        """Return the stored number of lines of each bundle that is stored with fewer lines than it has now."""
        if not bundles:
            return {}
        with _reaching("compare log lines"):
            self._client.indices.refresh(index=self._stream)
            answer = self._client.search(
                index=self._stream,
                query={"ids": {"values": [bundle.id for bundle in bundles]}},
                size=len(bundles),
                source_includes="bundle.lines",
            )
        there = {hit["_id"]: lines_in(hit["_source"]) for hit in answer["hits"]["hits"]}
        return {bundle.id: there[bundle.id] for bundle in bundles if there.get(bundle.id, bundle.lines) < bundle.lines}

    def tidy(self) -> None:
        """Roll over if the write index is older than `roll_after`; delete indices that are wholly older than `keep`."""
        if self._tidied is not None and self._clock.monotonic() - self._tidied < _TIDY_EVERY.total_seconds():
            return
        now = self._clock.system_now()
        with _reaching("tidy the log stream"):
            born = self._backing()
            if born and now - born[-1][1] >= millis(self._roll_after):
                self._client.indices.rollover(alias=self._stream)
            # A backing index takes lines until the next one is created, so its lines are older than the next one's
            # creation.
            for (name, _), (_, closed) in pairwise(born):
                if self._keep is not None and now - closed >= millis(self._keep):
                    self._client.indices.delete(index=name)
        self._tidied = self._clock.monotonic()

    def search(
        self, query: Mapping[str, object], limit: int, accepts: Callable[[Mapping[str, Any]], bool] = lambda _: True
    ) -> list[Mapping[str, Any]] | None:
        """Return the newest `limit` lines of an Elasticsearch query, oldest first; None if the stream does not exist.

        From a bundle, only the lines for which `accepts` is True are returned.
        """
        lines: list[Mapping[str, Any]] = []
        seen: set[str] = set()
        try:
            with _reaching("search the logs"):
                # A person who searches expects lines of a second ago; one refresh per command costs nothing.
                self._client.indices.refresh(index=self._stream)
                for first in range(0, _MOST, page := min(limit, _PAGE)):
                    hits = self._page(query, first, page)
                    # Between two pages, new documents may push old ones on.
                    unread = (unbundled(hit["_source"]) for hit in hits if hit["_id"] not in seen)
                    lines += islice(filter(accepts, chain.from_iterable(unread)), limit - len(lines))
                    if len(lines) == limit or len(hits) < page:
                        break
                    seen.update(hit["_id"] for hit in hits)
        except NotFoundError:
            return None
        return lines[::-1]

    def _page(self, query: Mapping[str, object], first: int, size: int) -> list[dict[str, Any]]:
        answer = self._client.search(
            index=self._stream,
            query=query,
            from_=first,
            size=min(size, _MOST - first),
            sort=[{"@timestamp": "desc"}, {"event.sequence": "desc"}],
            track_total_hits=False,
        )
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        return hits

    def _backing(self) -> list[tuple[str, int]]:
        """Return the backing indices with the system time of their creation, oldest first.

        It uses names and settings, because not every distribution has the data stream API.
        """
        settings = self._client.indices.get_settings(
            index=f".ds-{self._stream}-*", name="index.creation_date", expand_wildcards="all", allow_no_indices=True
        )
        own = re.compile(rf"\.ds-{re.escape(self._stream)}-\d{{4}}\.\d\d\.\d\d-(\d+)")
        names = [
            (int(match[1]), name, int(settings[name]["settings"]["index"]["creation_date"]))
            for name in settings
            if (match := own.fullmatch(name))
        ]
        return [(name, born) for _, name, born in sorted(names)]


def _raw(operations: list[bytes]) -> Any:
    """Pass lines unchanged: the client sends bytes as they are, though its signature allows only mappings."""
    return operations


class _reaching:  # noqa: N801 - reads as a verb where it is used
    """Converts client errors into errors that say who must act (an operator) and whether waiting helps."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, TransportError):
            raise ServiceUnreachable(f"the log search does not answer: cannot {self._doing}") from error
        if isinstance(error, ApiError) and error.status_code in _WAIT:
            raise ServiceUnreachable(f"the log search is busy: cannot {self._doing}") from error
        if isinstance(error, ApiError) and not isinstance(error, NotFoundError):
            raise OperatorError(f"the log search refuses to {self._doing}: {error.error}") from error
