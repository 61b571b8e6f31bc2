"""The end-to-end bench measures what it claims: users, kinds of processes, percentiles and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import e2e_tables, report
from bench.calibration import calibrate
from bench.e2e import PARTS, main
from bench.e2e_cases import HANGING, LATE, Launched, percentile
from bench.installation import Installation, user_rows, with_processes
from bench.peers.listmonk import Sent
from bench.processes import Usage, kind_of, per_mail
from engine.policy.load import load_policies

ONE = Launched(
    users=10_000,
    first=1.5,
    last=4.0,
    longest=0.25,
    missing=0,
    unexpected=0,
    doubled=0,
    spent={"deliver": 1.0, "mongod": 1.5, "up": 0.5, "feed": 0.25},
    quiet=10.0,
    sink=0.1,
    memory={"deliver": (80.0, 120.0), "feed": (90.0, 251.0), "mongod": (200.0, 900.0)},
    searchable=True,
    calib=0.225,
    load=1.5,
)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/v/bin/python /v/bin/tidegate worker deliver", "deliver"),
        ("/v/bin/python /v/bin/tidegate clock run", "clock"),
        ("/v/bin/python /v/bin/tidegate logs ship", "ship"),
        ("/v/bin/python /v/bin/tidegate up", "up"),
        ("/v/bin/python -m engine.local.processes.orphan_guard abc 20.0", "guard"),
        ("/v/fiftyone/db/bin/mongod --dbpath x", "mongod"),
        ("/v/valkey-server --bind 127.0.0.1", "Valkey"),
        ("/usr/lib/jvm/bin/java -Xmx64m", "java"),
        ("postgres: listmonk listmonk 127.0.0.1(1) idle", "postgres"),
        ("./listmonk --config x", "listmonk"),
        ("", "gone"),
    ],
)
def test_processes_are_named_by_what_they_do(command: str, kind: str) -> None:
    assert kind_of(command.split()) == kind


def test_processor_time_counts_from_the_launch_and_is_divided_by_mails() -> None:
    before, after = Usage({"deliver": 1.0, "up": 2.0}), Usage({"deliver": 1.5, "up": 2.0, "mongod": 0.1})
    assert after.since(before) == {"deliver": 0.5, "mongod": 0.1, "up": 0.0}
    assert per_mail(after.since(before), 1_000) == pytest.approx({"deliver": 500, "mongod": 100})


def test_every_user_has_an_address_of_its_own_and_the_small_campaigns_their_own_users() -> None:
    rows = list(user_rows(10, small=3, each=2))
    assert len({row[1] for row in rows}) == 16
    assert [row[7] for row in rows].count("big") == 10
    assert [row[7] for row in rows[10:]] == ["small00", "small00", "small01", "small01", "small02", "small02"]
    assert all(row[1].endswith(f"@{row[7]}.example") for row in rows)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.95, 19), (0.96, 20), (1.0, 20), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(list(range(20, 0, -1)), share) == expected


def test_a_percentile_of_no_values_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_folder_differs_from_init_only_in_sink_users_and_processes(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "run", 2525, processes=2)
    assert "port: 2525" in (tmp_path / "run/conf/settings.yaml").read_text()
    lanes = (tmp_path / "run/policies/lanes.yaml").read_text()
    assert "deliver: {lanes: [deliver], processes: 2," in lanes
    assert load_policies(tmp_path / "run/policies").fleets["deliver"].processes == 2
    path = installation.write_users(4, 1, 2)
    assert len(path.read_text().splitlines()) == 7
    assert installation.addresses.read_text().splitlines()[-1] == "u5@small00.example"
    with pytest.raises(ValueError, match="expected one line"):
        with_processes("fleets: {}\n", 2)


def test_the_table_of_the_whole_shows_medians_and_the_machine() -> None:
    launches = [ONE, replace(ONE, last=5.0), replace(ONE, last=2.0, missing=4)]
    table = e2e_tables.whole({"ours": launches}, None)
    assert (
        "| ours | 10,000 | 1.5 s | 4.0 s | 2,500 (2,000 to 4,998) | 1,250 | 325 µs | 650 µs | 0.25 s | 4, 0 |" in table
    )
    assert "| ours | 100 | 0 | 0 | 0 | 0 | 150 | 0 | 0 | 75 | 6 s after | yes | 10 |" in table
    assert e2e_tables.NO_PEER in table


def test_listmonk_is_in_the_same_table_if_it_was_measured() -> None:
    sent = Sent(10_000, 0.5, 2.0, 0, 0, 9.0, {"listmonk": 1.5, "postgres": 0.5})
    table = e2e_tables.whole({"ours": [ONE]}, [sent])
    assert "| 10,000 | 0.5 s | 2.0 s | 5,000 (5,000 to 5,000) | 2,500 | 200 µs | 400 µs | | 0, 0 | |" in table
    assert "| elsewhere |" in e2e_tables.whole({"ours": [ONE]}, [replace(sent, spent={})])
    assert e2e_tables.NO_PEER not in table


def test_a_late_sink_is_judged_by_what_the_connections_allow() -> None:
    reported = [(LATE, 16, [replace(ONE, users=16_000, last=125.0)]), (HANGING, 16, [replace(ONE, doubled=1)])]
    table = e2e_tables.late(reported)
    assert "| 100 ms late | 16,000 | 128.0 (128.0 to 128.0) | 16 | 160 | 80% |" in table
    assert "| 16 | 54 |" in table
    assert "| 0, 1 |" in table


def test_small_campaigns_memory_and_two_processes_have_their_tables() -> None:
    small = replace(ONE, after=5, small=[float(number) for number in range(1, 21)])
    assert "| 20 | 5 | 7,500 | 10.50 s | 19.00 s | 20.00 s | 0, 0 |" in e2e_tables.crowd([small])
    memory = e2e_tables.memory([ONE])
    assert "| deliver | 80 MiB | 120 MiB | <= 250 MiB |" in memory
    assert "| feed | 90 MiB | 251 MiB | ABOVE 250 MiB |" in memory
    assert "| mongod | 200 MiB | 900 MiB |  |" in memory
    two = e2e_tables.two([ONE], [replace(ONE, last=2.0)])
    assert "| 2 | 10,000 | 5,000 (5,000 to 5,000) | 2.00 |" in two


def test_the_page_has_the_marks_of_every_part() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert all(report.put(page, f"bench.e2e {part}", "new") for part in PARTS)


def test_an_unknown_part_is_refused_with_the_known_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "whole,half"])
    assert "no part half; there are whole, late" in capsys.readouterr().err


def test_the_loop_takes_some_time() -> None:
    assert calibrate(1) > 0
