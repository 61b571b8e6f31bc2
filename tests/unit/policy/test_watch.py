"""The watcher swaps in a valid set as a whole; an invalid set changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event, Timer

import pytest

from engine.errors import InvalidSource
from engine.folder_watcher import SETTLING
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet
from engine.policy.watch import PolicyWatcher

POLICIES = Path(__file__).parents[3] / "policies"


class Heard:
    """Records what a watcher reports."""

    def __init__(self) -> None:
        self.swaps: list[tuple[PolicySet, PolicySet]] = []
        self.refused: list[InvalidSource] = []
        self.swapped = Event()

    def changed(self, new: PolicySet, old: PolicySet) -> None:
        self.swaps.append((new, old))
        self.swapped.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(POLICIES, tmp_path / "policies")
    return tmp_path / "policies"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watcher(folder: Path, heard: Heard) -> PolicyWatcher:
    return PolicyWatcher(
        folder, load_policies(folder), on_change=heard.changed, on_refused=heard.refused.append, interval=0.01
    )


def _write(folder: Path, inactivity: str) -> None:
    profile = folder / "profiles" / "default.yaml"
    profile.write_text(f"profile: default\nlane: fast\ninactivity: {inactivity}\n", encoding="utf-8")


def test_no_event_is_emitted_while_nothing_changes(watcher: PolicyWatcher, heard: Heard) -> None:
    assert not watcher.look()
    assert not watcher.look()
    assert (heard.swaps, heard.refused) == ([], [])


def test_an_edit_is_swapped_in_and_reported_with_the_previous_set(
    watcher: PolicyWatcher, heard: Heard, folder: Path
) -> None:
    before = watcher.current
    _write(folder, "30d")
    assert watcher.look()
    assert watcher.current.profiles["default"].inactivity.days == 30
    assert heard.swaps == [(watcher.current, before)]


def test_an_invalid_edit_keeps_the_last_good_set_and_is_reported_once(
    watcher: PolicyWatcher, heard: Heard, folder: Path
) -> None:
    before = watcher.current
    _write(folder, "30 days")
    assert not watcher.look()
    assert not watcher.look()
    assert watcher.current is before
    assert len(heard.refused) == 1
    assert str(heard.refused[0]).startswith("policies/profiles/default.yaml:3:13: inactivity: expected a duration")
    assert watcher.refusal is heard.refused[0]


def test_a_file_that_is_just_being_written_is_not_refused(watcher: PolicyWatcher, heard: Heard, folder: Path) -> None:
    """An editor empties the file before it writes it."""
    path = folder / "profiles" / "default.yaml"
    whole = path.read_text()
    path.write_text("")
    Timer(SETTLING / 4, path.write_text, (whole.replace("inactivity: 45d", "inactivity: 30d"),)).start()
    assert not watcher.look()
    assert heard.refused == []
    assert watcher.look()


def test_a_mended_file_is_swapped_in(watcher: PolicyWatcher, folder: Path) -> None:
    _write(folder, "30 days")
    watcher.look()
    _write(folder, "30d")
    assert watcher.look()
    assert watcher.refusal is None


def test_a_reverted_edit_ends_the_refusal_without_a_swap(watcher: PolicyWatcher, heard: Heard, folder: Path) -> None:
    original = (folder / "profiles" / "default.yaml").read_text(encoding="utf-8")
    _write(folder, "30 days")
    watcher.look()
    (folder / "profiles" / "default.yaml").write_text(original, encoding="utf-8")
    assert not watcher.look()
    assert watcher.refusal is None
    assert heard.swaps == []


def test_a_touched_or_commented_file_is_no_change(watcher: PolicyWatcher, heard: Heard, folder: Path) -> None:
    lanes = folder / "lanes.yaml"
    lanes.write_text("# a comment\n" + lanes.read_text(encoding="utf-8"), encoding="utf-8")
    assert not watcher.look()
    assert heard.swaps == []


def test_a_missing_folder_is_refused_and_the_set_is_kept(watcher: PolicyWatcher, heard: Heard, folder: Path) -> None:
    shutil.rmtree(folder)
    assert not watcher.look()
    assert len(heard.refused) == 1
    assert watcher.current.version


def test_the_watching_thread_swaps_edits_and_stops(watcher: PolicyWatcher, heard: Heard, folder: Path) -> None:
    watcher.start()
    watcher.start()
    _write(folder, "30d")
    assert heard.swapped.wait(10)
    watcher.stop()
    watcher.stop()
    assert watcher.current.profiles["default"].inactivity.days == 30


def test_a_failing_listener_does_not_end_the_watch(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    twice = Event()

    def fails(new: PolicySet, _old: PolicySet) -> None:
        seen.append(new.version)
        if len(seen) == 2:
            twice.set()
        else:
            _write(folder, "20d")
        raise RuntimeError("a listener's fault")

    watcher = PolicyWatcher(
        folder, load_policies(folder), on_change=fails, on_refused=lambda _error: None, interval=0.01
    )
    _write(folder, "30d")
    watcher.start()
    assert twice.wait(10)
    watcher.stop()
    assert watcher.current.profiles["default"].inactivity.days == 20
    assert "policy.watch_failed" in caplog.text
