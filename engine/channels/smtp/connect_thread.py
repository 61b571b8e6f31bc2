"""Set up one connection in its own thread, and explain why a connection failed."""

from __future__ import annotations

import smtplib
import ssl
import threading
from collections.abc import Callable

from engine.channels.smtp.connection import Connection, SmtpOptions
from engine.channels.smtp.replies import CONNECTION, MISCONFIGURED, Answer, Phase, judge, words
from engine.channels.smtp.server_state import ServerState
from engine.domain.delivery import Cause, Retry


class Opening:
    """A connection that is being set up, then the connection or the error."""

    def __init__(self, options: SmtpOptions, server: ServerState, deadline: float) -> None:
        self._made = (options, server, deadline)
        self.connection: Connection | None = None
        self.error: OSError | smtplib.SMTPException | None = None

    def start(self, give: Callable[[Opening], None]) -> None:
        """Start the thread; it calls `give` with this object when the set-up has ended."""
        self._thread = threading.Thread(target=lambda: give(self._done()), name="connecting", daemon=True)
        self._thread.start()

    def wait(self, within: float) -> None:
        """Wait until the set-up has ended, for at most `within` seconds."""
        self._thread.join(within)

    def _done(self) -> Opening:
        try:
            self.connection = Connection(*self._made)
        except (OSError, smtplib.SMTPException) as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - whatever a server causes, it counts as unreachable
            self.error = OSError(f"{type(error).__name__}: {error}")
        return self

    def drop(self) -> None:
        """Close the connection, if any: nobody needs it any more."""
        if self.connection is not None:
            self.connection.quit()


def refused(error: OSError | smtplib.SMTPException) -> Retry:
    """Return the outcome of a failed set-up: always `Retry`, because the server has not heard of any recipient."""
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
        outcome = judge(Phase.CONNECT, Answer(error.smtp_code, said=words(b"%d %b" % (error.smtp_code, said))))
        return outcome if isinstance(outcome, Retry) else Retry(CONNECTION, "smtp_garbled_at_connect", Cause.PROVIDER)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Retry(MISCONFIGURED, "smtp_no_starttls_or_auth", Cause.US, str(error))
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Retry(MISCONFIGURED, "smtp_tls", Cause.US, words(str(error).encode()))
    if isinstance(error, TimeoutError):
        return Retry(CONNECTION, "smtp_timeout_at_connect", Cause.PROVIDER)
    return Retry(CONNECTION, "smtp_unreachable", Cause.PROVIDER)
