from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from engine.local.processes.output import Output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def output(stream: io.StringIO) -> Output:
    return Output(stream, ["web", "slow.1"], now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_only_whole_lines_are_written_before_the_end() -> None:
    stream = io.StringIO()
    lines = output(stream)
    lines.feed("web", b"one\ntw")
    assert stream.getvalue() == "03:04:05 web      | one\n"
    lines.feed("slow.1", b"mine\n")
    lines.feed("web", b"o\r\nthr")
    lines.finish("web")
    assert [line.partition("| ")[2] for line in stream.getvalue().splitlines()] == ["one", "mine", "two", "thr"]


def test_invalid_utf_8_does_not_stop_the_output() -> None:
    stream = io.StringIO()
    output(stream).feed("web", b"\xff\xfe\n")
    assert stream.getvalue().endswith("| \ufffd\ufffd\n")


def test_a_line_without_an_end_is_not_held_back_for_ever() -> None:
    stream = io.StringIO()
    output(stream).feed("web", b"x" * 70_000)
    assert stream.getvalue().count("x") == 70_000


def test_a_terminal_gets_a_colour_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    lines = output(stream)
    lines.feed("web", b"a\n")
    lines.feed("slow.1", b"b\n")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("\x1b[36m")
    assert second.startswith("\x1b[33m")


def test_no_color_disables_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    output(stream).say("hello")
    assert stream.getvalue() == "03:04:05 tidegate | hello\n"


LOGGED = (
    b'{"@timestamp":"2026-01-02T03:04:05.000Z","log.level":"info","message":"delivery.sent",'
    b'"event":{"action":"delivery.sent","duration":2000000},"labels":{"campaign":"lapsed","user":"hh-1"}}'
)


def test_a_log_line_becomes_a_sentence_and_any_other_is_unchanged() -> None:
    stream = io.StringIO()
    lines = output(stream)
    lines.feed("web", LOGGED + b"\nplain\n" + b'{"@timestamp": broken\n')
    text = "The provider accepted the message. campaign=lapsed user=hh-1 took=2.0ms"
    assert stream.getvalue().splitlines() == [
        f"03:04:05 web      | info     delivery.sent: {text}",
        "03:04:05 web      | plain",
        '03:04:05 web      | {"@timestamp": broken',
    ]


ALIKE = [
    LOGGED.replace(b'"duration":2000000', b'"sequence":%d' % number).replace(b"hh-1", b"hh-%d" % number)
    for number in range(1, 1_051)
]


def test_equal_lines_become_one_sentence_on_a_terminal() -> None:
    stream = io.StringIO()
    lines = output(stream)
    received: list[str] = []
    lines.on_event = lambda _, event: received.append(event)
    lines.feed("web", b"\n".join([*ALIKE[:50], b"plain", ALIKE[50], b""]))
    prefix = "03:04:05 web      | "
    text = f"{prefix}info     delivery.sent: The provider accepted the message. campaign=lapsed user="
    assert stream.getvalue().splitlines() == [f"{text}hh-1, and 49 more", f"{prefix}plain", f"{text}hh-51"]
    assert received == ["delivery.sent"] * 2


def test_a_line_for_several_states_the_count() -> None:
    stream = io.StringIO()
    brief = [line[:-1] + b',"alike":%d}' % count for line, count in zip(ALIKE[:3], (1_000, 1_000, 7), strict=True)]
    output(stream).feed("web", b"\n".join([*brief, b"plain", LOGGED, b""]))
    shown = [
        line.partition("| ")[2].removeprefix("info     delivery.sent: ") for line in stream.getvalue().splitlines()
    ]
    text = "The provider accepted the message. campaign=lapsed user="
    assert shown == [f"{text}hh-1, and 1,999 more", f"{text}hh-3, and 6 more", "plain", f"{text}hh-1 took=2.0ms"]


def test_equal_lines_stay_separate_as_json() -> None:
    stream = io.StringIO()
    Output(stream, ["web"], now=lambda: datetime(2026, 1, 2, tzinfo=UTC), as_json=True).feed(
        "web", b"\n".join([*ALIKE, b""])
    )
    assert stream.getvalue().splitlines() == [line.decode() for line in ALIKE]


def test_json_output_is_one_document_a_line() -> None:
    stream = io.StringIO()
    lines = Output(stream, ["web"], now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), as_json=True)
    lines.feed("web", LOGGED + b"\nplain\n")
    lines.say("hello")
    logged, plain, own = stream.getvalue().splitlines()
    assert logged == LOGGED.decode()
    assert json.loads(plain) == {
        "@timestamp": "2026-01-02T03:04:05.000Z",
        "log.level": "info",
        "message": "plain",
        "labels": {"process": "web"},
    }
    assert json.loads(own)["labels"] == {"process": "tidegate"}


def test_a_listener_gets_the_events() -> None:
    received: list[tuple[str, str]] = []
    lines = output(io.StringIO())
    lines.on_event = lambda name, event: received.append((name, event))
    lines.feed("web", b"plain\n" + LOGGED + b"\n")
    assert received == [("web", "delivery.sent")]
