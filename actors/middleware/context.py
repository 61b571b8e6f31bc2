"""Carries the log context (trace id, run, slice) from the sender to the actor."""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

from collections.abc import Callable, Mapping

from dramatiq import Broker, Message, MessageProxy
from dramatiq.middleware import Middleware

Context = Mapping[str, str]


class LogContext(Middleware):
    """Writes the result of `capture()` into the message, binds it around the actor, and clears it afterwards.

    A message keeps the context that it already carries: a retry or a rerouted copy belongs to the first sender's trace.
    """

    def __init__(
        self, *, capture: Callable[[], Context], bind: Callable[[Context], object], clear: Callable[[], object]
    ) -> None:
        self.capture = capture
        self.bind = bind
        self.clear = clear

    def before_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        """Write the sender's context into the message, unless it has one."""
        if "context" not in message.options and (context := self.capture()):
            message.options["context"] = dict(context)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Bind the sender's context for the log lines of this thread."""
        self.clear()  # a hook that failed half-way may have left a context
        self.bind({"message_id": message.message_id, **message.options.get("context", {})})

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Clear the context: the next message of this thread belongs to another trace."""
        self.clear()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Clear the context: a skipped message never reaches `after_process_message`."""
        self.clear()
