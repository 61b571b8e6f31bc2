"""The bench's sink takes each mail once, answers when the test says so, and keeps its answers in order."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bench.sink import Group, Taken
from bench.sink_process import Sink, sink


class Dialogue:
    """A client that waits for the line of each answer."""

    def __init__(self, server: Sink) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._answers = self._connection.makefile("rb")

    def hear(self) -> bytes:
        return self._answers.readline()

    def say(self, words: bytes) -> None:
        self._connection.sendall(words)

    def mail(self, recipient: bytes) -> bytes:
        """Send a mail step by step; return the last answer."""
        for words in (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<%b>\r\n" % recipient, b"DATA\r\n"):
            self.say(words)
            self.hear()
        self.say(b"Subject: x\r\n\r\nx\r\n.\r\n")
        return self.hear()

    def close(self) -> None:
        self._answers.close()
        self._connection.close()


def test_the_sink_counts_repeats_and_groups_and_compares_recipients(tmp_path: Path) -> None:
    with sink() as server:
        client = Dialogue(server)
        assert client.hear().startswith(b"220")
        for recipient in (b"u1@big.example", b"u2@big.example", b"u2@big.example", b"u3@small.example"):
            assert client.mail(recipient) == b"250 taken\r\n"
        expected = tmp_path / "addresses"
        expected.write_text("u1@big.example\nu2@big.example\nu9@big.example\n")
        assert server.compared(expected) == {"missing": 1, "unexpected": 1}
        now = server.now()
        client.close()
        assert server.taken() == now
    assert (now["mails"], now["recipients"], now["repeated"], now["connections"]) == (4, 3, 1, 1)
    assert {name: group[0] for name, group in now["groups"].items()} == {"big.example": 3, "small.example": 1}
    assert now["latest"] == "u3@small.example"


def test_an_unfinished_mail_is_not_counted() -> None:
    with sink() as server:
        client = Dialogue(server)
        client.hear()
        client.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u1@big.example>\r\nDATA\r\nhalf a mail")
        assert [client.hear()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.close()
        assert server.taken()["mails"] == 0


def test_a_slow_answer_keeps_the_order_of_answers() -> None:
    with sink(1, "--slow-each", "1", "--slow-by", "0.2") as server:
        client = Dialogue(server)
        client.hear()
        client.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u1@big.example>\r\nDATA\r\n")
        assert [client.hear()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.say(b"x\r\n.\r\n")
        client.say(b"NOOP\r\nQUIT\r\n")
        assert [client.hear()[:3] for _ in range(4)] == [b"250", b"250", b"221", b""]
        client.close()


def test_a_hanging_connection_is_greeted_late_and_delays_no_other() -> None:
    with sink(0, "--hang-each", "2", "--hang-for", "0.5") as server:
        first, second, third = Dialogue(server), Dialogue(server), Dialogue(server)
        assert first.hear().startswith(b"220")
        assert third.hear().startswith(b"220")
        assert third.mail(b"u1@big.example") == b"250 taken\r\n"
        assert second.hear().startswith(b"220")
        assert second.mail(b"u2@big.example") == b"250 taken\r\n"
        for item in (first, second, third):
            item.close()


def test_the_longest_time_without_a_mail_counts_from_the_first_mail() -> None:
    taken = Taken()
    for moment in (100.0, 100.5, 103.0, 103.25):
        taken.take([b"u@x"], 10, moment)
    assert taken.longest == pytest.approx(2.5)
    assert taken.groups == {b"x": Group(4, 100.0, 103.25)}
