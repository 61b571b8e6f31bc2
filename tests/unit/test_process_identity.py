from __future__ import annotations

import os
import subprocess
import sys

from actors.broker.process_ids import is_known_dead, new_id
from engine.process_identity import Born, birth_of, here, myself


def test_a_process_is_identified_by_pid_and_start_time() -> None:
    assert myself().alive
    assert not Born(os.getpid(), "another boot:1").alive
    assert Born(os.getppid(), birth_of(os.getppid()) or "").alive


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        born = Born(process.pid, birth_of(process.pid) or "")
        assert born.alive
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not born.alive


def test_broker_ids_of_a_process_are_unique_and_show_that_it_runs() -> None:
    assert new_id() != new_id()
    assert not is_known_dead(new_id())


def test_a_broker_id_shows_that_its_process_ended() -> None:
    place, _, _, own = new_id().split("|")
    assert place == here()
    assert is_known_dead("|".join((place, str(os.getpid()), "another boot:1", own)))
    assert is_known_dead("|".join((place, str(2**22 + 1), "a boot:1", own)))


def test_nothing_is_known_of_remote_processes_and_foreign_ids() -> None:
    _, _, birth, own = new_id().split("|")
    assert not is_known_dead("|".join(("another-machine/", str(2**22 + 1), birth, own)))
    assert not is_known_dead("7a55b7f0-6c4b-4f0e-9b0b-0e6d4a1d2c3b")
