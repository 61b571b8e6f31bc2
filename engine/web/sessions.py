"""Sessions in signed cookies, and the tokens that bind a form to one.

A cookie holds who logged in (empty: nobody yet) and a random session id. It is signed and dated; what it says is
checked against the recorded accesses at each request, so it is void once the access is removed.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

COOKIE: Final = "tidegate_session"


@dataclass(frozen=True, slots=True)
class Session:
    """Who logged in (`name` and the `number` of the access; both empty: nobody), and the id of the session."""

    id: str
    name: str = ""
    number: str = ""


class Sessions:
    """Signs and reads cookies with the installation's `key`; they last `lasts`."""

    def __init__(self, key: str, lasts: timedelta, *, https: bool) -> None:
        self._serializer = URLSafeTimedSerializer(key, salt="tidegate session")
        self._key = key.encode()
        self._lasts = lasts
        self._https = https

    @property
    def cookie(self) -> str:
        """The cookie's name; browsers refuse `__Host-` from anywhere but this very host by HTTPS."""
        return f"__Host-{COOKIE}" if self._https else COOKIE

    def new(self, name: str = "", number: str = "") -> Session:
        """Return a new session, with an id that cannot be guessed."""
        return Session(secrets.token_urlsafe(18), name, number)

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None if it is not ours or too old."""
        if not cookie:
            return None
        try:
            told = self._serializer.loads(cookie, max_age=int(self._lasts.total_seconds()))
        except BadSignature:
            return None
        return Session(told["s"], told["n"], told["a"])

    def give(self, response: Response, session: Session) -> None:
        """Set the cookie of a session."""
        signed = self._serializer.dumps({"s": session.id, "n": session.name, "a": session.number})
        response.set_cookie(
            self.cookie,
            signed if isinstance(signed, str) else signed.decode(),
            max_age=int(self._lasts.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=self._https,
            path="/",
        )

    def form_token(self, session: str) -> str:
        """Return the token that forms of a session carry."""
        return blake2b(f"form {session}".encode(), key=self._key[:64], digest_size=24).hexdigest()

    def form_fits(self, session: str, token: str) -> bool:
        """Return whether a form's token is that of the session."""
        return bool(session) and hmac.compare_digest(self.form_token(session).encode(), token.encode())
