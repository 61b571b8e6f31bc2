"""The users in Elasticsearch: whole documents with an external version, and searches for the keys of matching users.

The index may be stale and only proposes users: the engine decides on each of them from MongoDB. A document's version is
the user's revision, so batches may arrive twice, late or out of order, and the newest document remains.

Each new index has a name of its own behind the alias. Searches use that name. If an index is lost and recreated in the
middle of a pass, the search then fails instead of answering that nobody matches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Final
from uuid import uuid4

import orjson
from elasticsearch import ApiError, Elasticsearch, NotFoundError, TransportError

from engine.domain.document import Document
from engine.domain.keys import HIGHEST, hash_prefix
from engine.errors import EngineError, ServiceUnreachable
from engine.query_metrics import named_queries
from engine.stores.driver_errors import search_trouble

ALIAS: Final = "tidegate-users"
LONGEST_ID: Final = 512
"""Bytes that Elasticsearch allows in an `_id`. A longer key is hashed; `user_id` always contains the whole key."""

LOWEST: Final = hash_prefix(0)
"""No suffix sorts below this. No suffix sorts below a part of it, such as `0`, either."""

LARGEST_PAGE: Final = 10_000
"""Hits in one answer: `index.max_result_window`."""

BULK: Final = 8 << 20
"""Bytes in one bulk request: large enough for 15 k documents/s, small enough for any server's limit of 100 MB."""

_OLDER: Final = 409
_BUSY: Final = 429
_TRIES: Final = 6
_PAUSE: Final = 0.25
"""Seconds before the second try of a busy server, doubled each time: about 15 in all."""


class NotIndexed(EngineError):
    """Elasticsearch refused users; the message gives the reasons of the first."""


def alias_of(database: str) -> str:
    """Return the alias of an installation's users, by its database: two installations may share one Elasticsearch."""
    return ALIAS if database == "tidegate" else f"{ALIAS}.{database.lower()}"


def document_id(key: str) -> str:
    """Return the `_id` of a user key."""
    return key if len(key) <= LONGEST_ID else f"#{blake2b(key.encode(), digest_size=32).hexdigest()}"


@named_queries("elastic")
class UserIndex:
    """The users' index behind one alias."""

    def __init__(self, client: Elasticsearch, alias: str = ALIAS) -> None:
        self._client = client.options(request_timeout=60)
        self.alias = alias

    def ensure(self, template: Mapping[str, Any]) -> None:
        """Create template, index and alias if missing; safe to repeat. `template` has `settings` and `mappings`.

        It is `conf/index-templates/users.json`. Changed mappings are added to an existing index. Raises `NotIndexed` if
        they contradict it or the server refuses, and `ServiceUnreachable`. If several processes call it at once, one of
        them creates the index.
        """
        with _answered():
            self._client.indices.put_index_template(
                name=self.alias, index_patterns=[f"{self.alias}-*"], template=dict(template), priority=500
            )
            if not self._client.indices.exists_alias(name=self.alias):
                self._create()
            self._client.indices.put_mapping(index=self.alias, **template["mappings"])

    def _create(self) -> None:
        """Create an index behind the alias, unless another process does so at the same time."""
        name = f"{self.alias}-{uuid4().hex[:12]}"
        try:
            self._client.indices.create(index=name, aliases={self.alias: {"is_write_index": True}})
        except ApiError:
            # An alias has one write index: the server refuses a second (with 400 or 500, depending on its version).
            if not self._client.indices.exists_alias(name=self.alias):
                raise

    def identity(self) -> str | None:
        """Return name and uuid of the index behind the alias, as `name/uuid`; None if there is no index.

        A different identity means different users: the index was created, or restored from a snapshot, since. Raises
        `NotIndexed`, `ServiceUnreachable`.
        """
        try:
            with _answered():
                settings = self._client.indices.get_settings(index=self.alias, name="index.uuid", flat_settings=True)
        except NotIndexed as error:
            if isinstance(error.__cause__, NotFoundError):
                return None
            raise
        return next((f"{name}/{index['settings']['index.uuid']}" for name, index in sorted(settings.items())), None)

    def index(self, documents: Iterable[Mapping[str, Any]], *, again: bool = False) -> int:
        """Index whole documents (from `elastic_document`); return how many were newer than the indexed ones.

        `again` also writes a document of the same revision, because its form changed when its workspace file was
        edited. Raises `NotIndexed` with reasons if some were refused, after all others are indexed;
        `ServiceUnreachable`.
        """
        kind = "external_gte" if again else "external"
        actions = (
            _action("index", document["user_id"], document["rev"], kind) + orjson.dumps(document) + b"\n"
            for document in documents
        )
        return self._bulk(actions)

    def delete(self, revisions: Mapping[str, int]) -> int:
        """Delete documents by user key, unless they are newer than the revision; return how many were deleted.

        For a deleted user, indexing the tombstone is better: Elasticsearch remembers the version of a deletion for only
        a minute.
        """
        return self._bulk(_action("delete", key, rev) for key, rev in revisions.items())

    def _bulk(self, actions: Iterable[bytes]) -> int:
        done = 0
        refused: list[str] = []
        for chunk in chunks(actions):
            items = [next(iter(answer.values())) for answer in self._send(chunk)]
            for item in items:
                if item["status"] in (200, 201):
                    done += 1
                elif item["status"] != _OLDER and "error" in item:  # a missing document to delete has no error
                    refused.append(reason_of(item))
        if refused:
            raise NotIndexed(
                f"Elasticsearch refused {len(refused)} users: {'; '.join(dict.fromkeys(refused[:3]))}",
                remedy="run `tidegate migrate`, then import again",
            )
        return done

    def _send(self, lines: Sequence[bytes]) -> list[Document]:
        """Send one bulk request; repeat it after a pause while the server says that it is busy."""
        for attempt in range(_TRIES):
            try:
                answer = self._client.bulk(index=self.alias, operations=lines, require_alias=True)  # type: ignore[arg-type]
            except TransportError as error:
                raise search_trouble(error) from error
            except ApiError as error:
                raise _refused(error) from error
            items: list[Document] = answer.body["items"]
            if all(next(iter(item.values()))["status"] != _BUSY for item in items):
                return items
            time.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2**attempt)
        raise ServiceUnreachable("Elasticsearch is too busy to index users", remedy="try again later")

    def ids(
        self, query: Mapping[str, Any], workspace: str, first: str, until: str, size: int, index: str | None = None
    ) -> list[str]:
        """Return the keys of at most `size` matching users with a suffix in [first, until), in order; no tombstones.

        If `size` keys are returned, there may be more: ask again from the last suffix + a NUL. The search reads only
        sorted doc values, never `_source`; because each search covers one hash range, nothing is kept open. `index` is
        searched by its name (default: the index behind the alias). Raises `NotIndexed`, also if a part of the index
        does not answer, and `ServiceUnreachable`.
        """
        return list(self._pages(query, workspace, first, until, size, index or self.alias))

    def _pages(
        self, query: Mapping[str, Any], workspace: str, first: str, until: str, size: int, index: str
    ) -> Iterator[str]:
        after: list[Any] | None = None
        left = size
        while left > 0:
            page = min(left, LARGEST_PAGE)
            with _answered():
                answer = self._client.search(
                    index=index,
                    query=in_range(query, workspace, first, until),
                    sort=[{"h": "asc"}, {"user_id": "asc"}],
                    size=page,
                    search_after=after,
                    track_total_hits=False,
                    stored_fields="_none_",
                    allow_partial_search_results=False,
                )
            hits = answer["hits"]["hits"]
            for hit in hits:
                yield hit["sort"][1]
            if len(hits) < page:
                return
            left -= page
            after = hits[-1]["sort"]

    def count(self, query: Mapping[str, Any], workspace: str, index: str | None = None) -> int:
        """Return how many users match, without tombstones. `index` and errors as for `ids`."""
        with _answered():
            answer = self._client.count(index=index or self.alias, query=in_range(query, workspace, "0", HIGHEST))
        if answer["_shards"]["failed"]:
            raise NotIndexed("a part of Elasticsearch does not answer")
        return int(answer["count"])

    def refresh(self) -> None:
        """Make everything that is indexed visible to searches. Raises `NotIndexed`, `ServiceUnreachable`."""
        with _answered():
            self._client.indices.refresh(index=self.alias)


@contextmanager
def _answered() -> Iterator[None]:
    """Convert the client's errors into the engine's."""
    try:
        yield
    except TransportError as error:
        raise search_trouble(error) from error
    except ApiError as error:
        raise _refused(error) from error


def in_range(query: Mapping[str, Any], workspace: str, first: str, until: str) -> Document:
    """Restrict `query` to the living users of a workspace with a suffix in [first, until).

    The filter uses the hash, by which the index is sorted. A bound inside a hash (a cursor) also needs a filter on the
    key. A bound that excludes nobody is omitted: a range of keywords costs a step for each of its terms, 0.1 s for a
    million users.
    """
    hashes: Document = {}
    if first > LOWEST:
        hashes["gte"] = first[:8]
    if until < HIGHEST:
        hashes["lte" if "/" in until else "lt"] = until[:8]
    filters: list[Mapping[str, Any]] = [{"term": {"w": workspace}}, {"term": {"deleted": False}}]
    if hashes:
        filters.append({"range": {"h": hashes}})
    if "/" in first or "/" in until:
        filters.append({"range": {"user_id": {"gte": f"{workspace}/{first}", "lt": f"{workspace}/{until}"}}})
    return {"bool": {"filter": [*filters, query]}}


def _action(kind: str, key: str, rev: int, versions: str = "external") -> bytes:
    return orjson.dumps({kind: {"_id": document_id(key), "version": rev, "version_type": versions}}) + b"\n"


def chunks(actions: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut actions into pieces of about `BULK` bytes."""
    chunk: list[bytes] = []
    size = 0
    for action in actions:
        if size + len(action) > BULK and chunk:
            yield chunk
            chunk, size = [], 0
        chunk.append(action)
        size += len(action)
    if chunk:
        yield chunk


def reason_of(item: Mapping[str, Any]) -> str:
    """Return the error type of a failed bulk item, without its text, which may quote a person's data."""
    error = item.get("error") or {}
    cause = error.get("caused_by", {}).get("type")
    return f"{error.get('type', 'unknown')} ({item['status']}{f', {cause}' if cause else ''})"


def _refused(error: ApiError) -> EngineError:
    """Convert a refusal: busy, not allowed, or the request itself (then with the type of the error)."""
    trouble = search_trouble(error)
    return trouble if isinstance(trouble, ServiceUnreachable) else NotIndexed(str(trouble), remedy=trouble.remedy)
