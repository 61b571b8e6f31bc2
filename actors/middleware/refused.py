"""The error that a middleware raises to refuse something."""

from __future__ import annotations

from dramatiq.middleware import MiddlewareError

from engine.errors import ProgrammerError


class Refused(ProgrammerError, MiddlewareError):
    """The broker refuses this actor, message or worker; the message says why.

    It is a `MiddlewareError` because the broker swallows every other exception of a hook and goes on.
    """
