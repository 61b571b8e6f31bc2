"""Translate driver errors into problems of a service: one true sentence, an exit code, no secret.

The exit code is 3 if there is no connection or login (no answer, TLS, credentials), and 1 if the service answers but is
not fit for the engine (rights, read-only, full, too old).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from engine.errors import EngineError, OperatorError, ServiceUnreachable

if TYPE_CHECKING:
    import redis
    from elasticsearch import ApiError, TransportError
    from pymongo.errors import PyMongoError

UNAUTHORIZED: Final = 13
LOGIN_FAILED: Final = 18
NO_SPACE: Final = 14031
NOT_FIT: Final = frozenset({UNAUTHORIZED, LOGIN_FAILED, NO_SPACE})
"""Codes with which MongoDB refuses independently of the data: no data is to blame."""

AWAY: Final = frozenset({6, 7, 43, 89, 91, 94, 133, 134, 189, 237, 262, 9001, 10107, 11600, 11602, 13435, 13436})
"""Codes with which MongoDB answers while its servers go, come or change roles; the request is repeated.

They cover hosts and sockets (6, 7, 89, 9001), a cursor that a restart forgot or a step-down ended (43, 237),
shutting down (91, 11600), no configuration yet or no suitable server (94, 133, 134), another primary (189, 10107,
11602, 13435, 13436), and no time left (262)."""

_TLS: Final = re.compile(r"\b(SSL|TLS|certificate)", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r'execute command \{ (\w+): "?([\w.$]+)"?.*', re.DOTALL)
_LONGEST: Final = 160
_SILENT: Final = "it accepts a connection and sends nothing"
_ROOM: Final = "make room there; the engine continues by itself"
_STATUS: Final = "tidegate status shows what runs"
_ABSENT: Final = f"start a local one with tidegate up, or your own server yourself; {_STATUS}"
_RIGHTS: Final = "give its user the rights of docs/rights.md"
_TLS_REMEDY: Final = (
    "ask for TLS in the address (tls=true, rediss://, https://), with the CA, exactly if the server uses it"
)


def trouble_of(error: BaseException) -> EngineError | None:
    """Convert a driver's error into the engine's; return None for any other error."""
    package = type(error).__module__.partition(".")[0]
    if package == "pymongo":
        return mongo_trouble(error)  # type: ignore[arg-type]  # what that package raises
    if package == "redis":
        return redis_trouble(error, "Redis")  # type: ignore[arg-type]  # the same
    if package in ("elasticsearch", "elastic_transport"):
        return search_trouble(error)  # type: ignore[arg-type]  # the same
    return None


def mongo_trouble(error: PyMongoError) -> EngineError:
    """Describe an error of MongoDB."""
    from pymongo.errors import ConfigurationError, OperationFailure

    if isinstance(error, OperationFailure):
        return _refused_by_mongo(error.code, str((error.details or {}).get("errmsg") or error))
    text = _first(str(error).partition(", Topology Description:")[0].partition(", Timeout:")[0])
    if isinstance(error, ConfigurationError):
        return ServiceUnreachable(f"MongoDB cannot be found: {text}", remedy="check services.mongo_url and the DNS")
    if _TLS.search(str(error)):
        return ServiceUnreachable(f"MongoDB: no TLS connection is possible: {text}", remedy=_TLS_REMEDY)
    if "No replica set members" in text or "No primary" in text or "not primary" in text:
        return ServiceUnreachable(
            f"MongoDB has no primary: {text}", remedy="rs.status() on one of its servers shows why"
        )
    return ServiceUnreachable(f"MongoDB does not answer: {text}", remedy=_ABSENT)


def _refused_by_mongo(code: int | None, text: str) -> EngineError:
    if code == LOGIN_FAILED or "auth failed" in text.lower():
        remedy = "check user, password and authSource of services.mongo_url"
        return ServiceUnreachable("MongoDB refuses the login: user or password is wrong", remedy=remedy)
    if code == UNAUTHORIZED:
        action = _FORBIDDEN.sub(r"execute \1 of \2", text).partition(" {")[0]
        return OperatorError(f"MongoDB does not allow it: {_first(action)}", remedy=_RIGHTS)
    if code in AWAY:
        return ServiceUnreachable(f"MongoDB was briefly unavailable ({code}): {_first(text)}", remedy=_STATUS)
    if code == NO_SPACE:
        return OperatorError("MongoDB has no space left on its disk", remedy=_ROOM)
    return OperatorError(f"MongoDB refuses ({code}): {_first(text.partition(' {')[0])}", remedy=_STATUS)


def redis_trouble(error: redis.RedisError, name: str) -> EngineError:
    """Describe an error of a Redis or Valkey; `name` is its role in messages, e.g. `the broker`."""
    import redis
    from redis import exceptions

    text = _first(str(error))
    if isinstance(error, exceptions.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        remedy = "check user and password of its address"
        return ServiceUnreachable(f"{name} refuses the login: user or password is wrong or missing", remedy=remedy)
    if isinstance(error, exceptions.NoPermissionError):
        return OperatorError(f"{name} does not allow it: {text}", remedy=_RIGHTS)
    if isinstance(error, exceptions.ReadOnlyError) or "read only replica" in text.lower():
        return OperatorError(f"{name} is a read-only replica", remedy="give the address of its primary")
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in text:
        remedy = "raise its maxmemory, or store less in it; the engine continues by itself then"
        return OperatorError(f"{name} is full: it takes no writes (maxmemory)", remedy=remedy)
    if text.startswith("MISCONF"):
        return OperatorError(f"{name} cannot write to its disk, and takes no writes", remedy="make room there")
    if isinstance(error, exceptions.BusyLoadingError):
        return ServiceUnreachable(f"{name} still loads its data", remedy="try again in a moment")
    if isinstance(error, redis.TimeoutError):
        return ServiceUnreachable(f"{name} does not answer: {_SILENT}", remedy=f"{_STATUS}; {_TLS_REMEDY}")
    if _TLS.search(text):
        return ServiceUnreachable(f"{name}: no TLS connection is possible: {text}", remedy=_TLS_REMEDY)
    if isinstance(error, exceptions.InvalidResponse) or "Protocol Error" in text:
        return ServiceUnreachable(f"{name}: the server at that address is not Redis", remedy="check its address")
    if isinstance(error, redis.ConnectionError):
        hint = _TLS_REMEDY if "closed by server" in text.lower() else _ABSENT
        return ServiceUnreachable(f"{name} does not answer: {text}", remedy=hint)
    return OperatorError(f"{name} refuses: {text}", remedy=_STATUS)


def search_trouble(error: ApiError | TransportError) -> EngineError:
    """Describe an error of Elasticsearch."""
    from elasticsearch import ApiError

    if not isinstance(error, ApiError):
        return _unheard(error)
    status = error.meta.status
    if status == 401:
        remedy = "give services.elastic_api_key, or user and password in services.elastic_url"
        return ServiceUnreachable("Elasticsearch refuses the login (401)", remedy=remedy)
    if status == 403 and "cluster_block" not in error.message:
        return OperatorError("Elasticsearch does not allow it (403)", remedy=_RIGHTS)
    if status == 406 or "media_type" in error.message:
        return OperatorError(
            "Elasticsearch is too old: it does not know the format of version 8", remedy="8.0 or later"
        )
    if "cluster_block" in error.message:
        return OperatorError("Elasticsearch takes no writes: is its disk nearly full?", remedy="make room there")
    if status in (429, 502, 503, 504):
        return ServiceUnreachable(f"Elasticsearch is too busy ({status})", remedy="try again later")
    if type(error).__name__ == "UnsupportedProductError":
        return ServiceUnreachable(
            "the server at that address is not Elasticsearch", remedy="check services.elastic_url"
        )
    kind = error.message if re.fullmatch(r"[a-z_]{1,80}", error.message) else type(error).__name__
    return OperatorError(f"Elasticsearch refuses: {status} {kind}", remedy=_STATUS)


def _unheard(error: TransportError) -> EngineError:
    kind, text = type(error).__name__, _first(str(error))
    if kind == "SerializationError":
        return ServiceUnreachable(
            "the server at that address is not Elasticsearch", remedy="check services.elastic_url"
        )
    if kind == "TlsError" or _TLS.search(text):
        return ServiceUnreachable(f"Elasticsearch: no TLS connection is possible: {text}", remedy=_TLS_REMEDY)
    if kind == "ConnectionTimeout":
        return ServiceUnreachable(f"Elasticsearch does not answer: {_SILENT}", remedy=_STATUS)
    return ServiceUnreachable(f"Elasticsearch does not answer: {kind}", remedy=_ABSENT)


def _first(text: str) -> str:
    """Return the first line, shortened, without details that only a driver's author needs."""
    line = text.strip().splitlines()[0] if text.strip() else "it says nothing"
    line = re.sub(r" \(configured timeouts: [^)]*\)", "", line)
    line = re.sub(r", full error: .*", "", line)
    line = re.sub(r"<object object at 0x[0-9a-f]+>\s*", "", line)
    return line.rstrip(" .") if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
