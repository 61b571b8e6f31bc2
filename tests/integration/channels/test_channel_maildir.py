"""The Maildir channel writes one file per key, despite kills and repeats."""

from __future__ import annotations

import mailbox
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.channels.maildir import MaildirChannel, file_name
from engine.domain.delivery import Envelope, Retry, Sent

SENDER = """
import sys
from pathlib import Path
from engine.channels.maildir import MaildirChannel
from engine.domain.delivery import Envelope
channel = MaildirChannel(Path(sys.argv[1]), durable=False)
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    raw = b"Subject: %d\\r\\n\\r\\n" % number + b"x" * 20_000 + b"\\r\\nEND\\r\\n"
    channel.send([Envelope(f"grocer/c/00000000/hh-{number}/0001/m", "a@b.example", "c@d.example", raw)])
"""


def envelope(key: str, raw: bytes = b"Subject: x\r\n\r\nHi\r\n") -> Envelope:
    return Envelope(key, "a@b.example", "c@d.example", raw)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_repeated_delivery_writes_nothing(tmp_path: Path) -> None:
    channel = MaildirChannel(tmp_path)
    assert channel.send([envelope("k/1", b"first"), envelope("k/1", b"second"), envelope("k/2")]) == [Sent()] * 3
    assert channel.send([envelope("k/1", b"third")]) == [Sent()]
    assert (tmp_path / "new" / file_name("k/1")).read_bytes() == b"first"
    assert len(names(tmp_path / "new")) == 2
    assert names(tmp_path / "tmp") == []


def test_a_mail_that_a_reader_has_moved_still_counts(tmp_path: Path) -> None:
    channel = MaildirChannel(tmp_path)
    channel.send([envelope("k/1"), envelope("k/2")])
    box = mailbox.Maildir(tmp_path, create=False)
    for name in list(box.iterkeys()):
        message = box[name]
        message.set_subdir("cur")
        message.set_flags("RS")
        box[name] = message
    assert names(tmp_path / "new") == []
    assert (channel.find("k/1"), channel.find("k/3")) == (True, False)
    assert channel.send([envelope("k/1"), envelope("k/3")]) == [Sent(), Sent()]
    assert names(tmp_path / "new") == [file_name("k/3")]


def test_find_returns_exactly_the_delivered_keys(tmp_path: Path) -> None:
    channel, other = MaildirChannel(tmp_path), MaildirChannel(tmp_path)
    assert channel.find("k/1") is False
    other.send([envelope("k/1")])
    assert channel.find("k/1") is True
    (tmp_path / "new" / file_name("k/1")).unlink()
    assert channel.find("k/1") is False


def test_a_torn_file_under_tmp_never_counts(tmp_path: Path) -> None:
    channel = MaildirChannel(tmp_path)
    (tmp_path / "tmp" / file_name("k/1")).write_bytes(b"Subj")
    assert channel.find("k/1") is False
    assert channel.send([envelope("k/1")]) == [Sent()]


def test_old_leftovers_are_removed_and_recent_ones_are_kept(tmp_path: Path) -> None:
    MaildirChannel(tmp_path)
    for name, age in (("old", timedelta(hours=37)), ("young", timedelta(hours=35))):
        path = tmp_path / "tmp" / name
        path.write_bytes(b"")
        then = path.stat().st_mtime - age.total_seconds()
        os.utime(path, (then, then))
    MaildirChannel(tmp_path)
    assert names(tmp_path / "tmp") == ["young"]


def test_concurrent_deliveries_of_one_key_write_one_file(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    outcomes: list[object] = []

    def race() -> None:
        channel = MaildirChannel(tmp_path, durable=False)
        barrier.wait()
        for number in range(50):
            outcomes.extend(channel.send([envelope(f"k/{number}")]))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Sent()] * 400
    assert len(names(tmp_path / "new")) == 50


def test_a_sender_killed_anywhere_leaves_whole_mails_and_the_repeat_makes_exactly_one(tmp_path: Path) -> None:
    total = 400
    for kill_after in (1, 25, 60, 110, 170):
        child = subprocess.Popen([sys.executable, "-c", SENDER, str(tmp_path), str(total)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        while len(names(tmp_path / "new")) < kill_after and child.poll() is None:
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for name in names(tmp_path / "new"):
            assert (tmp_path / "new" / name).read_bytes().endswith(b"END\r\n"), "no half mail"
    subprocess.run([sys.executable, "-c", SENDER, str(tmp_path), str(total)], check=True, capture_output=True)
    assert len(names(tmp_path / "new")) == total
    subjects = {(tmp_path / "new" / name).read_bytes().split(b"\r\n")[0] for name in names(tmp_path / "new")}
    assert len(subjects) == total


def test_a_failing_disk_is_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = MaildirChannel(tmp_path)
    (tmp_path / "tmp").rmdir()
    (tmp_path / "tmp").write_text("")
    assert channel.send([envelope("k/1")]) == [Retry(timedelta(seconds=60), "maildir_enotdir")]
    assert channel.find("k/1") is False


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_file_names_are_safe_and_unique_per_key(keys: list[str]) -> None:
    made = [file_name(key) for key in keys if key.isprintable()]
    assert len(set(made)) == len(made)
    for name in made:
        assert len(name) <= 180
        assert not set(name) & set("/:,\0")
        assert not name.startswith(".")


def test_long_keys_have_unique_names() -> None:
    assert file_name("k" * 500) != file_name("k" * 501)
    assert len(file_name("k" * 5_000)) < 180
