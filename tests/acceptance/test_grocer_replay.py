"""The order of the replay driver's requests; the replays themselves test the engine."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from examples.grocer import data, replay


class Diary:
    """Records each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def import_users(self, file: Path) -> int:
        return self._imported("users", file)

    def import_events(self, file: Path) -> int:
        return self._imported(f"events {file.stem}", file)

    def import_list(self, file: Path, name: str) -> int:
        return self._imported(f"list {name}", file) - 1

    def apply(self, file: Path) -> None:
        self.asked.append(f"apply {file.stem}")

    def launch(self, campaign: str) -> None:
        self.asked.append(f"launch {campaign}")

    def advance(self, to: int) -> None:
        self.asked.append(f"advance {to}")

    def wait_until_nothing_is_open(self, patience: timedelta) -> None:
        self.asked.append("wait")

    def _imported(self, what: str, file: Path) -> int:
        self.asked.append(what)
        return len(file.read_text().splitlines())


def test_each_day_imports_its_events_then_advances_time_then_waits(tmp_path: Path) -> None:
    diary, progress = Diary(), list[replay.Progress]()
    window = data.Window(date(2017, 3, 1), date(2017, 3, 3))
    replay.replay(diary, window, tmp_path, progress.append)
    campaigns = ["lapsed", "big-spender", "deli-no-seafood", "redeemed-and-back", "list-01"]
    assert diary.asked == [
        "users",
        "list campaign-1",
        "events history",
        *(f"apply {name}" for name in campaigns),
        "events 2017-03-01",
        f"advance {data.as_of(date(2017, 3, 1))}",
        *(f"launch {name}" for name in campaigns),
        "wait",
        "events 2017-03-02",
        f"advance {data.as_of(date(2017, 3, 2))}",
        "wait",
        "events 2017-03-03",
        f"advance {data.as_of(date(2017, 3, 3))}",
        "wait",
    ]
    assert [(step.day, step.number, step.events) for step in progress] == [
        (day, number, len(data.events_of(day))) for number, day in enumerate(window.days(), start=1)
    ]


def test_days_without_events_are_days_too(tmp_path: Path) -> None:
    diary = Diary()
    replay.replay(diary, data.Window(date(2016, 11, 14), date(2016, 11, 15)), tmp_path, lambda _: None)
    assert [call for call in diary.asked if call == "wait" or call.startswith("events")] == ["wait", "wait"]
