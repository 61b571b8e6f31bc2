"""Imports with options, from standard input, and of damaged files, on a real MongoDB."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import WrongCall
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.job import Kind, Mode, Order, identity
from engine.pipeline.importing.line_reader import DamagedFile


def counts(summary: Any) -> tuple[int, ...]:
    """Return the counts created, updated, unchanged, repeated and rejected; check that they add up."""
    assert sum(summary.counts.values()) == summary.rows
    return tuple(summary.counts[name] for name in ("created", "updated", "unchanged", "repeated", "rejected"))


def test_a_truncated_file_is_imported_up_to_its_damage_and_the_whole_one_completes_it(importer: Any) -> None:
    content = b"user_id,age\n" + b"".join(b"u%d,%d\n" % (n, n) for n in range(7_000)) + b"x,bad\n" * 3
    packed = gzip.compress(content)
    path = importer.write("a.csv.gz", packed[: len(packed) // 2])
    with pytest.raises(DamagedFile) as caught:
        importer.run("users", path)
    count = importer.database["users"].count_documents({})
    assert count > 3_000
    assert str(caught.value).startswith(f"line {count + 2}: the file is damaged: it ends in the middle")
    assert str(caught.value).endswith(f"; the {count:,} rows before it are imported")
    assert caught.value.exit_code == 2
    path.write_bytes(packed)
    summary = importer.run("users", path)
    assert summary.resumed_at is None
    assert counts(summary) == (7_000 - count, 0, count, 0, 3)
    path.write_bytes(packed[:-5])
    with pytest.raises(DamagedFile, match=r"the 7,003 rows before it are imported, but 3 that were rejected: see "):
        importer.run("users", path)


def test_a_damaged_file_that_replaces_a_list_removes_nobody(importer: Any) -> None:
    importer.run("lists", importer.write("a.csv", "user_id\na\nb\nc\n"), list_name="vips")
    packed = gzip.compress(b"user_id\nb\n" + b"".join(b"n%d\n" % n for n in range(9_000)))
    with pytest.raises(DamagedFile):
        importer.run("lists", importer.write("b.csv.gz", packed[:-20]), list_name="vips", mode=Mode.REPLACE)
    assert importer.stored_users()["a"]["lists"] == ["vips"]


def test_odd_values_of_parquet_are_rejects_and_all_other_rows_are_imported(importer: Any) -> None:
    micros = pa.array([253_402_300_800_000_000 if n == 777 else n for n in range(2_000)], pa.int64())
    table = pa.table({"user_id": [f"u{n}" for n in range(2_000)], "joined": micros.cast(pa.timestamp("us"))})
    table = table.append_column("big", pa.array([2**64 - 1] * 2_000, pa.uint64()))
    pq.write_table(table, importer.folder / "a.parquet")
    summary = importer.run("users", importer.folder / "a.parquet", layout=Layout(ignore_unknown=True))
    assert counts(summary) == (1_999, 0, 0, 0, 1)
    assert summary.left_out == ("big",)
    line, reason = importer.rejected(summary)[0]
    assert line == 778
    assert "outside the years 1 to 9999" in reason


def test_every_option_is_part_of_the_identity_of_an_import(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id\nu\n")
    layouts = [
        Layout(), Layout({"a": "b"}), Layout(defaults={"a": "b"}), Layout(ignored=frozenset("a")),
        Layout(values={"a": {"b": "c"}}), Layout(values={"a": {"b": "d"}}), Layout(date_formats={"": "%Y"}),
        Layout(date_formats={"a": "%Y"}), Layout(decimal_comma=True), Layout(ignore_unknown=True), Layout(row_id=True),
        Layout(omit_addresses=True),
    ]  # fmt: skip
    orders = [Order(Kind.USERS, path, layout=layout) for layout in layouts]
    orders += [Order(Kind.USERS, path, encoding="cp1252"), Order(Kind.USERS, path, delimiter=";")]
    assert len({identity(order) for order in orders}) == len(orders)
    assert identity(orders[0]) == identity(Order(Kind.USERS, path))


def test_a_killed_import_resumes_only_with_the_same_options(importer: Any, program: Any) -> None:
    rows = "".join(f"u{n};{'ja' if n % 2 else 'nein'};{n},5\n" for n in range(100))
    path = importer.write("a.csv", "user_id;vip;score\n" + rows)
    options = {"values": {"vip": {"ja": "true", "nein": "false"}}, "decimal_comma": True}
    killed = {"order": {"batch": 10, "delimiter": ";"}, "layout": options, "die": {"save": 5}}
    program.run_and_die(importer, "users", path, **killed)
    again = importer.run("users", path, delimiter=";", layout=Layout(**options))
    assert again.resumed_at == 52
    assert counts(again) == (100, 0, 0, 0, 0)
    program.run_and_die(importer, "users", path, **killed)
    other = importer.run("users", path, delimiter=";", layout=Layout(**{**options, "ignore_unknown": True}))
    assert other.resumed_at is None
    assert counts(other) == (0, 0, 100, 0, 0)


def test_a_killed_import_of_an_encoded_gzip_array_resumes(importer: Any, program: Any) -> None:
    rows = [{"user_id": f"ü{n}", "age": n} for n in range(100)]
    path = importer.write("a.json.gz", gzip.compress(json.dumps(rows, ensure_ascii=False).encode("utf-16")))
    program.run_and_die(importer, "users", path, order={"batch": 10, "encoding": "utf-16"}, die={"save": 5})
    summary = importer.run("users", path, encoding="utf-16")
    assert summary.resumed_at == 51
    assert counts(summary) == (100, 0, 0, 0, 0)
    assert importer.stored_users()["ü99"]["a"] == {"age": 99}


@pytest.mark.parametrize(
    ("options", "expected"), [(("mal", "email"), "did you mean mail?"), (("mail", "emial"), "email?")]
)
def test_an_option_that_names_no_key_of_a_short_file_writes_nothing(importer: Any, options: Any, expected: str) -> None:
    path = importer.write("a.ndjson", '{"user_id": "u", "mail": "a@x.example"}\n')
    with pytest.raises(WrongCall) as caught:
        importer.run("users", path, layout=Layout(dict([options]), ignore_unknown=True))
    assert expected in f"{caught.value} {caught.value.remedy}"
    assert importer.stored_users() == {}


def test_a_key_that_no_row_of_a_long_file_has_is_reported_at_the_end(importer: Any) -> None:
    path = importer.write("a.ndjson", "".join(f'{{"user_id": "u{n}"}}\n' for n in range(30)))
    summary = importer.run("users", path, layout=Layout({"seldom": "note"}), batch=10)
    assert summary.unused == ("seldom",)
    assert not summary.fine
    path = importer.write("b.ndjson", path.read_text() + '{"user_id": "v", "seldom": "x"}\n')
    assert importer.run("users", path, layout=Layout({"seldom": "note"}), batch=10).fine
    assert importer.stored_users()["v"]["a"] == {"note": "x"}


def test_rows_without_an_id_are_numbered_the_same_each_time(importer: Any) -> None:
    users = importer.write("customers.csv", "age\n7\n7\n")
    for expected in ((2, 0, 0, 0, 0), (0, 0, 2, 0, 0)):
        assert counts(importer.run("users", users, layout=Layout(row_id=True), restart=True)) == expected
    assert set(importer.stored_users()) == {"customers-2", "customers-3"}
    row = "u,Coupon Redeemed,2026-01-01\n"
    events = importer.write("orders.csv", "user_id,name,time\n" + row * 3)
    assert counts(importer.run("events", events)) == (1, 0, 0, 2, 0)
    importer.database["events"].delete_many({})
    for expected in ((3, 0, 0, 0, 0), (0, 0, 0, 3, 0)):
        assert counts(importer.run("events", events, layout=Layout(row_id=True))) == expected
    tomorrow = importer.write("orders.csv", "user_id,name,time\n" + row.replace("01-01", "01-02"))
    assert counts(importer.run("events", tomorrow, layout=Layout(row_id=True))) == (1, 0, 0, 0, 0)
    ndjson = importer.write("n.ndjson", '{"age": 1}\n{"user_id": "x", "age": 2}\n')
    assert counts(importer.run("users", ndjson, layout=Layout(row_id=True))) == (1, 0, 0, 0, 1)
    with pytest.raises(WrongCall, match="the file has a column user_id"):
        importer.run("users", importer.write("b.csv", "user_id\nu\n"), layout=Layout(row_id=True))
    with pytest.raises(WrongCall, match="for users and events"):
        importer.run("lists", users, list_name="l", layout=Layout(row_id=True))


def test_bad_addresses_are_rejected_and_counted_or_left_out(importer: Any) -> None:
    importer.run("users", importer.write("o.csv", "user_id,email\nu2,good@x.example\n"))
    path = importer.write("a.csv", "user_id,email,unsubscribed\nu1,A@X.Example,false\nu2,nobody,true\nu3,a@b,false\n")
    summary = importer.run("users", path)
    assert counts(summary) == (1, 0, 0, 0, 2)
    assert (summary.bad_addresses, summary.omitted) == (2, 0)
    assert importer.stored_users()["u1"]["email"] == "A@x.example"
    summary = importer.run("users", path, layout=Layout(omit_addresses=True))
    assert counts(summary) == (1, 1, 1, 0, 0)
    assert (summary.bad_addresses, summary.omitted) == (2, 2)
    assert summary.example.startswith("line 3: email: ")
    users = importer.stored_users()
    assert users["u2"]["email"] == "good@x.example"
    assert users["u2"]["unsubscribed"] is True
    assert "email" not in users["u3"]
    upper = importer.write("b.csv", "user_id,email\nu1,A@X.EXAMPLE\n")
    assert counts(importer.run("users", upper)) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("users", b"user_id,age\nu1,7\nu2,x\n"),
        pytest.param("users", gzip.compress(b"user_id,age\nu1,7\nu2,x\n", mtime=0), id="users-gzip"),
        ("users", b'{"user_id": "u1", "age": 7}\n{"user_id": "u2", "age": "x"}\n'),
        ("users", b'[{"user_id": "u1", "age": 7}, {"user_id": "u2", "age": "x"}]'),
        ("events", b'{"user_id": "u1", "name": "Coupon Redeemed", "time": "2026-01-01"}\n{"user_id": "u2"}\n'),
        ("lists", b"user_id\nu1\n\n u2\n"),
    ],
)
def test_standard_input_is_read(
    importer: Any,
    call: Any,
    kind: str,
    content: bytes,
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--list", "l"] if kind == "lists" else []
    result = call(kind, "-", "-w", "shop", "--json", *more, given=content)
    assert result.exit_code == 1, result.output
    summary = json.loads(result.stdout)
    assert (summary["file"], summary["created"], summary["rejected"]) == ("stdin", 1, 1)
    assert summary["rejects_file"] == "stdin.rejects.ndjson"
    assert Path("stdin.rejects.ndjson").exists()
    assert list(importer.stored_users()) == ["u1"]
    assert importer.database["imports"].count_documents({}) == 0


def test_a_named_pipe_is_a_stream_too(importer: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("user_id\n" + "".join(f"u{n}\n" for n in range(20_000))))
    writer.start()
    summary = importer.run("users", pipe, rejects=tmp_path / "r.ndjson")
    writer.join()
    assert counts(summary) == (20_000, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", "is a folder"),
        ("none.csv", "there is no such file"),
        ("x" * 300, "cannot be read: File name too long"),
        ("-", "Parquet is not read from a pipe"),
    ],
)
def test_a_path_that_is_no_file_is_refused(importer: Any, name: str, expected: str) -> None:
    (importer.folder / "folder").mkdir()
    path = Path("-") if name == "-" else importer.folder / name
    with pytest.raises(WrongCall, match=expected):
        importer.run("users", path, form="parquet" if name == "-" else None, rejects=importer.folder / "r.ndjson")


def test_options_reach_an_import_from_the_command_line(importer: Any, call: Any) -> None:
    content = "Kunde;Mail;Abgemeldet;Seit;Umsatz;Rest\nu1;Ann@Shop.EXAMPLE;1;31.12.2025;1.234,50;J\xfcrgen\n"
    path = importer.write("kunden.csv", content.encode("cp1252"))
    result = call(
        "users", str(path), "-w", "shop", "--delimiter", ";", "--encoding", "cp1252", "--map", "Kunde=user_id",
        "--map", "Mail=email", "--map", "Abgemeldet=unsubscribed", "--map", "Seit=joined", "--map", "Umsatz=spent",
        "--values", "unsubscribed=1:true,0:false", "--date-format", "%d.%m.%Y", "--decimal-comma", "--ignore-unknown",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "left out, as the workspace does not declare them: Rest" in result.stderr
    assert importer.stored_users()["u1"] == {
        "email": "Ann@shop.example", "unsubscribed": True, "a": {"joined": 1_767_139_200_000, "spent": 123_450},
        "g": {"orders_count": 0, "orders_value": 0},
    }  # fmt: skip
    wrong = importer.write("a.csv", "user_id,email\nu2,nobody\nu3,nobody\n")
    result = call("users", str(wrong), "-w", "shop", "--bad-address", "omit", "--json")
    assert result.exit_code == 0
    assert (json.loads(result.stdout)["bad_addresses"], json.loads(result.stdout)["addresses_omitted"]) == (2, 2)
    result = call("users", str(wrong), "-w", "shop", "--restart")
    assert result.exit_code == 1
    assert "2 of the rejected rows have an invalid e-mail address" in result.stderr
