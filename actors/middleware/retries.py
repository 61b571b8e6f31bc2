"""Retries that cannot lose a message (docs/broker.md, rows 1 and 14).

Stock Dramatiq swallows the error if it cannot enqueue the retry because Redis is away, and acknowledges the original:
the message is then in no queue and in no dead letters. Its defaults are 20 retries within 7 days.
"""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

import traceback
from datetime import timedelta
from typing import Any, Final

from dramatiq import Actor, Broker, Message, MessageProxy
from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.middleware import Retries

from actors.middleware.refused import Refused
from engine.clock import millis

MAX_RETRIES: Final = 3
"""Default of actors that state none: a message is only a wake-up, and the clock enqueues again from MongoDB."""
MIN_BACKOFF: Final = timedelta(seconds=1)
MAX_BACKOFF: Final = timedelta(minutes=5)
"""Longer than any restart of a service; longer waits are kept in MongoDB."""


class CertainRetries(Retries):
    """Retries with a cap; if enqueuing the retry fails, rejects the message, so that it becomes a dead letter.

    Options of an actor or a message: `max_retries`, `min_backoff`, `max_backoff` (both in ms; the cap given here limits
    both) and `throws`. With `limits_required` it refuses the declaration of an actor that states no `max_retries` or no
    `time_limit`. A message keeps where it failed (`failure`: exception and line, never its text, which may hold
    personal data).
    """

    def __init__(
        self,
        *,
        max_retries: int = MAX_RETRIES,
        min_backoff: timedelta = MIN_BACKOFF,
        max_backoff: timedelta = MAX_BACKOFF,
        limits_required: bool = True,
    ) -> None:
        super().__init__(max_retries=max_retries, min_backoff=millis(min_backoff), max_backoff=millis(max_backoff))
        self.limits_required = limits_required

    def before_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        """Check an actor's options. Raises `Refused` for an actor without its own limits."""
        missing = [name for name in ("max_retries", "time_limit") if actor.options.get(name) is None]
        if self.limits_required and missing:
            raise Refused(
                f"actor {actor.actor_name} does not state {' and '.join(missing)}",
                remedy="Dramatiq's own limits are 20 retries over 7 days and 10 minutes; give the actor its own.",
            )

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Enqueue the retry of a failed message, or reject it."""
        if exception is None:
            return
        try:
            self._retry(broker, message, exception)
        except Exception:  # whatever failed here, the original must not be acknowledged
            self.logger.warning("Could not enqueue the retry of %s; rejecting it.", message.message_id, exc_info=True)
            message.fail()

    def _retry(self, broker: Broker, message: MessageProxy, exception: BaseException) -> None:
        actor = broker.get_actor(message.actor_name)
        message.options["failure"] = where(exception)
        throws = message.options.get("throws") or actor.options.get("throws")
        retries = int(message.options.get("retries", 0))
        limit = int(self._option(actor, message, "max_retries", self.max_retries))
        if (throws and isinstance(exception, throws)) or retries >= limit:
            self.logger.warning("No more retries for %s after %d: rejecting it.", message.message_id, retries)
            message.fail()
            return
        message.options["retries"] = retries + 1
        delay = self._delay(actor, message, retries, exception)
        self.logger.info("Retrying %s in %d ms.", message.message_id, delay)
        broker.enqueue(_inner(message), delay=delay)

    def _delay(self, actor: Actor[Any, Any], message: MessageProxy, retries: int, exception: BaseException) -> int:
        longest = min(int(self._option(actor, message, "max_backoff", self.max_backoff)), self.max_backoff)
        if isinstance(exception, Retry) and exception.delay is not None:
            return min(exception.delay, longest)
        shortest = int(self._option(actor, message, "min_backoff", self.min_backoff))
        return compute_backoff(retries, factor=shortest, max_backoff=longest)[1]

    @staticmethod
    def _option(actor: Actor[Any, Any], message: MessageProxy, name: str, default: object) -> Any:
        return message.options.get(name, actor.options.get(name, default))


def where(exception: BaseException) -> str:
    """Return e.g. `ValueError at decide_slice.py:31`: enough to find the log line, and nothing personal."""
    frames = traceback.extract_tb(exception.__traceback__)
    if not frames:
        return type(exception).__name__
    return f"{type(exception).__name__} at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"


def _inner(message: MessageProxy) -> Message[Any]:
    """Return a copy of the message behind the proxy."""
    copied: Message[Any] = message.copy()
    return copied
