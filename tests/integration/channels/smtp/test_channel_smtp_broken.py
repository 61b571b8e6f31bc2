"""The SMTP channel against servers that break, stall or speak another protocol."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from engine.channels.mail.mime import Mail, Sender, build
from engine.channels.smtp.channel import SmtpChannel
from engine.channels.smtp.connection import Security, SmtpOptions
from engine.domain.delivery import Envelope, Retry, Unknown


def sending(port: int, **options: object) -> closing[SmtpChannel]:
    given: dict[str, object] = {"security": Security.OFF, "timeout": timedelta(seconds=2), "helo": "tests.example"}
    return closing(SmtpChannel(SmtpOptions("127.0.0.1", port, **(given | options))))  # type: ignore[arg-type]


def envelope(text: str = "Hi") -> Envelope:
    sender = Sender("Grocer", "news@grocer.example")
    return build(Mail("grocer/c/0a1b2c3d/hh-1/0001/m", "c", 0, 0, sender, "hh-1@example.org", "Hello", text=text))


@contextmanager
def scripted(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that sends the bytes that a test writes, as no well-behaved server does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(10)


def _until_data(connection: socket.socket) -> None:
    lines = connection.makefile("rb")
    connection.sendall(b"220 hello\r\n")
    for line in lines:
        if line.startswith(b"DATA"):
            connection.sendall(b"354 go\r\n")
            return
        connection.sendall(b"250 fine\r\n")


def test_silence_after_the_final_dot_leaves_the_delivery_unknown() -> None:
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        _until_data(connection)
        over.wait(10)

    with scripted(silent) as port, sending(port, timeout=timedelta(milliseconds=300)) as channel:
        assert channel.send([envelope()]) == [Unknown("smtp_timeout_after_dot")]
        over.set()


def test_a_server_that_drips_bytes_cannot_exceed_the_attempt() -> None:
    over = threading.Event()

    def dripping(connection: socket.socket) -> None:
        _until_data(connection)
        while not over.wait(0.05):
            try:
                connection.sendall(b"2")
            except OSError:
                return

    bounds = {"timeout": timedelta(seconds=1), "attempt": timedelta(milliseconds=600)}
    with scripted(dripping) as port, sending(port, **bounds) as channel:
        assert channel.send([envelope()]) == [Unknown("smtp_timeout_after_dot")]
        over.set()


def test_garbage_after_the_final_dot_leaves_the_delivery_unknown() -> None:
    def garbling(connection: socket.socket) -> None:
        _until_data(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        connection.recv(65_536)

    with scripted(garbling) as port, sending(port) as channel:
        assert channel.send([envelope()]) == [Unknown("smtp_broken_after_dot")]


def test_a_connection_that_breaks_within_the_body_has_not_delivered() -> None:
    def breaking(connection: socket.socket) -> None:
        _until_data(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with scripted(breaking) as port, sending(port) as channel:
        (outcome,) = channel.send([envelope(("x" * 100 + "\n") * 200_000)])
    assert outcome == Retry(timedelta(seconds=30), "smtp_broken_at_data")
