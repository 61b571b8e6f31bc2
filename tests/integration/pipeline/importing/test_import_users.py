"""Users from files, on a real MongoDB."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.domain.keys import user_key
from engine.errors import WrongCall
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.job import Limit, Summary


def counts(summary: Summary) -> Sequence[int]:
    """Return the counts created, updated, unchanged, repeated and rejected; check that they add up."""
    assert sum(summary.counts.values()) == summary.rows
    return tuple(summary.counts[name] for name in ("created", "updated", "unchanged", "repeated", "rejected"))


def test_new_users_are_created_changed_ones_updated_and_equal_ones_unchanged(importer: Any) -> None:
    first = importer.write("a.csv", "user_id,email,age,plan\nu1,a@x.example,7,Gold\nu2,,8,\n")
    assert counts(importer.run("users", first)) == (2, 0, 0, 0, 0)
    before = {document["u"]: document["rev"] for document in importer.database["users"].find()}
    assert counts(importer.run("users", first)) == (0, 0, 2, 0, 0)
    second = importer.write("b.csv", "user_id,age,plan\nu1,7,gold\nu2,8,\nu3,,\n")
    summary = importer.run("users", second)
    assert (counts(summary), summary.written) == ((1, 1, 1, 0, 0), 2)
    after = {document["u"]: document for document in importer.database["users"].find()}
    assert after["u1"]["rev"] > before["u1"]
    assert after["u1"]["changed"] == ["plan"]
    assert after["u1"]["a"] == {"age": 7, "plan": "gold"}
    assert after["u1"]["k"] == {"plan": "gold"}
    assert after["u2"]["rev"] == before["u2"]
    assert after["u3"]["changed"][0] == "created"
    assert after["u3"]["g"] == {"orders_count": 0, "orders_value": 0}


def test_rows_of_one_user_in_one_file_are_applied_in_their_order(importer: Any) -> None:
    path = importer.write("a.csv", "user_id,age,note\nu,1,x\nu,2,\nu,2,x\nu,3,y\n")
    assert counts(importer.run("users", path)) == (1, 2, 1, 0, 0)
    assert importer.stored_users()["u"]["a"] == {"age": 3, "note": "y"}


def test_null_removes_a_field_and_its_folded_copy(importer: Any) -> None:
    importer.run("users", importer.write("a.ndjson", '{"user_id": "u", "plan": "Gold", "email": "x@y.example"}'))
    importer.run("users", importer.write("b.ndjson", '{"user_id": "u", "plan": null, "email": null}'))
    user = importer.stored_users()["u"]
    assert "email" not in user
    assert user["a"] == {}
    assert user["k"] == {}


def test_texts_that_look_like_expressions_of_mongodb_stay_texts(importer: Any) -> None:
    rows = [{"user_id": "u", "note": "x"}, {"user_id": "$rev", "note": "$$NOW", "tags": ["$a", "{$b}"]}]
    importer.run("users", importer.write("a.ndjson", "\n".join(map(json.dumps, rows))))
    rows = [{"user_id": "u", "note": "$rev"}, {"user_id": "$rev", "tags": ["$$ROOT"]}]
    importer.run("users", importer.write("b.ndjson", "\n".join(map(json.dumps, rows))))
    assert importer.stored_users()["u"]["a"] == {"note": "$rev"}
    assert importer.stored_users()["$rev"]["a"] == {"note": "$$NOW", "tags": ["$$ROOT"]}


def test_csv_ndjson_and_parquet_leave_the_same_users(importer: Any, another: Any, tmp_path: Path) -> None:
    rows = [
        {"user_id": f"u{n}", "age": n, "spent": f"{n}.50", "tags": ["a", str(n)], "vip": n % 2 == 0} for n in range(50)
    ]
    lines = [f"{r['user_id']},{r['age']},{r['spent']},{'|'.join(r['tags'])},{str(r['vip']).lower()}" for r in rows]
    csv = importer.write("a.csv", "user_id,age,spent,tags,vip\n" + "\n".join(lines))
    ndjson = importer.write("a.ndjson", "\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    reported = []
    for path in (csv, ndjson, tmp_path / "a.parquet"):
        importer_ = another()
        assert counts(importer_.run("users", path, batch=9)) == (50, 0, 0, 0, 0)
        reported.append(importer_.stored_users())
    assert reported[0] == reported[1] == reported[2]


def planted_csv(rng: random.Random, rows: int) -> tuple[bytes, list[int], int]:
    """Write a file with 200 faults of ten kinds; return the lines where they begin and the number of good rows."""
    wrong = set(rng.sample(range(rows), 200))
    out, line, faulty = [b"user_id,email,age,score,joined,note\n"], 2, []
    for number in range(rows):
        user, note = b"u%d" % number, b'"a, b"'
        if rng.random() < 0.1:
            note = b'"first\nsecond, ""quoted""\r\nthird"'
        good = b"%s,%s@x.example,%d,1.5,2026-01-01,%s\n" % (user, user, number % 90, note)
        bad = [
            b"%s,\xff\xfe@x.example,1,1.5,2026-01-01,x\n" % user,
            b"%s,a@x.example,old,1.5,2026-01-01,x\n" % user,
            b",a@x.example,1,1.5,2026-01-01,x\n",
            b'%s,"a@x.example,1,1.5,2026-01-01,x\n' % user,
            b'%s,a@x.example,1,1.5,2026-01-01,"x\n' % user,
            b"%s,a@x.example,1,1.5,2026-01-01,%s\n" % (user, b"x" * 9000),
            b"%s,a@x.example,1,nan,2026-01-01,x\n" % user,
            b"%s,a@x.example,1,1.5,2026-02-30,x\n" % user,
            b"%s,a@x.example,1,1.5,2026-01-01,x\0y\n" % user,
            b"%s,a@x.example,1,1.5,2026-01-01,x,y,z\n" % user,
        ]
        row = bad[len(faulty) % len(bad)] if number in wrong else good
        if number in wrong:
            faulty.append(line)
        out.append(row)
        line += row.count(b"\n")
    return b"".join(out), faulty, rows - 200


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_exactly_the_planted_faults_of_a_csv_file_are_rejected(importer: Any, seed: int) -> None:
    content, faulty, good = planted_csv(random.Random(seed), 3_000)
    summary = importer.run("users", importer.write("a.csv", content), batch=1000)
    assert [line for line, _ in importer.rejected(summary)] == faulty
    assert all(reason for _, reason in importer.rejected(summary))
    assert counts(summary) == (good, 0, 0, 0, 200)
    assert importer.database["users"].count_documents({}) == good
    assert not summary.within_limit


def test_exactly_the_planted_faults_of_an_ndjson_file_are_rejected(importer: Any) -> None:
    rng = random.Random(4)
    wrong = set(rng.sample(range(2_000), 200))
    bad = [
        b'{"user_id": "%s", "$set": {"age": 1}}',
        b'{"user_id": "%s", "a.age": 1}',
        b'{"user_id": "%s", "age": "x"}',
        b'{"age": 1, "note": "%s"}',
        b'{"user_id": "%s", "note": "open}',
        b'{"user_id": "%s", "note": "\xff"}',
        b'{"user_id": "%s", "note": "' + b"x" * 9000 + b'"}',
        b'{"user_id": "%s", "score": Infinity}',
        b'{"user_id": "%s", "note": "\\u0000"}',
        b'{"user_id": "%s", "attributes": {"$gt": ""}}',
    ]
    lines = [
        (bad[number % 10] if number in wrong else b'{"user_id": "%s", "age": 1}') % (b"u%d" % number)
        for number in range(2_000)
    ]
    summary = importer.run("users", importer.write("a.ndjson", b"\n".join(lines)), batch=300)
    assert [line for line, _ in importer.rejected(summary)] == sorted(number + 1 for number in wrong)
    assert counts(summary) == (1_800, 0, 0, 0, 200)
    assert counts(importer.run("users", importer.folder / "a.ndjson")) == (0, 0, 1_800, 0, 200)


def test_a_rejects_file_in_csv_has_line_reason_and_row(importer: Any) -> None:
    path = importer.write("a.csv", "user_id,age\nu1,x\nu2,2\n,3\n")
    summary = importer.run("users", path, rejects=importer.folder / "bad.csv", limit=Limit(rows=2))
    lines = (importer.folder / "bad.csv").read_text().splitlines()
    assert lines[0] == "line,reason,row"
    assert lines[1].startswith("2,")
    assert lines[2] == '4,user_id is missing,",3"'
    assert summary.within_limit
    assert (importer.folder / "bad.csv").stat().st_mode & 0o077 == 0


def test_a_tombstone_is_not_revived_unless_asked(importer: Any) -> None:
    path = importer.write("a.csv", "user_id,age\nu1,7\nu2,8\n")
    importer.run("users", path)
    assert importer.users.delete(user_key("shop", "u1"))
    assert not importer.users.delete(user_key("shop", "u1"))
    gone = importer.users.get(user_key("shop", "u1"))
    assert set(gone) == {"_id", "w", "u", "rev", "changed", "deleted"}
    summary = importer.run("users", path)
    assert counts(summary) == (0, 0, 1, 0, 1)
    assert "--revive" in importer.rejected(summary)[0][1]
    assert importer.users.get(user_key("shop", "u1")) == gone
    assert counts(importer.run("users", path, revive=True)) == (1, 0, 1, 0, 0)
    back = importer.users.get(user_key("shop", "u1"))
    assert back["rev"] > gone["rev"]
    assert back["a"] == {"age": 7}
    assert "deleted" not in back


def test_a_killed_import_resumes_and_its_counts_add_up(importer: Any, program: Any) -> None:
    content, faulty, good = planted_csv(random.Random(9), 3_000)
    path = importer.write("a.csv", content)
    for die in ({"apply": 2}, {"save": 2}):
        program.run_and_die(importer, "users", path, order={"batch": 250}, die=die)
    assert program.run_and_kill(importer, "users", path, 2_000, order={"batch": 250})
    summary = importer.run("users", path, batch=250)
    assert summary.resumed_at is not None
    assert summary.rows == 3_000
    assert counts(summary)[4] == 200
    assert [line for line, _ in importer.rejected(summary)] == faulty
    assert importer.database["users"].count_documents({}) == good
    again = importer.run("users", path)
    assert again.resumed_at is None
    assert counts(again) == (0, 0, good, 0, 200)


def test_restart_begins_the_import_again(importer: Any, program: Any) -> None:
    path = importer.write("a.csv", "user_id,age\n" + "".join(f"u{n},1\n" for n in range(100)))
    program.run_and_die(importer, "users", path, order={"batch": 10}, die={"save": 5})
    summary = importer.run("users", path, restart=True)
    assert summary.resumed_at is None
    assert counts(summary) == (50, 0, 50, 0, 0)


def test_an_import_of_a_changed_file_does_not_resume(importer: Any, program: Any) -> None:
    path = importer.write("a.csv", "user_id,age\n" + "".join(f"u{n},1\n" for n in range(100)))
    program.run_and_die(importer, "users", path, order={"batch": 10}, die={"save": 5})
    status = path.stat()
    path.write_text(path.read_text().replace(",1\n", ",2\n"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    summary = importer.run("users", path)
    assert summary.resumed_at is None
    assert counts(summary) == (50, 50, 0, 0, 0)


def test_concurrent_imports_of_the_same_users_lose_no_change(importer: Any, program: Any) -> None:
    rows = list(range(4_000))
    paths = []
    for seed, column in ((1, "age"), (2, "note")):
        random.Random(seed).shuffle(rows)
        content = f"user_id,{column}\n" + "".join(f"u{n},{n}\n" for n in rows)
        paths.append(importer.write(f"{column}.csv", content))
    running = [program.start(importer, "users", path, order={"batch": 400}) for path in paths]
    ended = [process.end() for process in running]
    assert [status for _, status in ended] == [0, 0]
    ends = [json.loads(lines[-1]) for lines, _ in ended]
    assert ends[0]["created"] + ends[1]["created"] == 4_000
    assert ends[0]["updated"] + ends[1]["updated"] == 4_000
    stored = importer.stored_users()
    assert {user: (document["a"]["age"], document["a"]["note"]) for user, document in stored.items()} == {
        f"u{n}": (n, str(n)) for n in rows
    }


def test_a_second_import_of_the_same_file_is_refused_during_the_first(importer: Any, program: Any) -> None:
    path = importer.write("a.csv", "user_id,age\n" + "".join(f"u{n},1\n" for n in range(2_000)))
    process = program.start(importer, "users", path, order={"batch": 10})
    process.lines.readline()
    with pytest.raises(WrongCall, match="another import of this file"):
        importer.run("users", path)
    process.kill()
    process.end()


@pytest.mark.parametrize(
    ("content", "more", "expected"),
    [
        ("user_id,agee\nu,1\n", {}, "did you mean age?"),
        ("id,age\nu,1\n", {}, "--map"),
        ("user_id,age\nu,1\n", {"batch": 0}, "a batch has"),
        ("user_id,age\nu,1\n", {"list_name": "x"}, "for lists"),
    ],
)
def test_a_wrong_file_or_order_writes_nothing(importer: Any, content: str, more: Any, expected: str) -> None:
    with pytest.raises(WrongCall) as caught:
        importer.run("users", importer.write("a.csv", content), **more)
    assert expected in f"{caught.value} {caught.value.remedy}"
    assert importer.stored_users() == {}


def test_mapping_and_defaults_reach_the_users(importer: Any) -> None:
    path = importer.write("a.csv", "mail,alter\na@x.example,7\n")
    layout = Layout({"mail": "user_id", "alter": "age"}, {"plan": "Free"})
    importer.run("users", path, layout=layout)
    assert importer.stored_users()["a@x.example"]["a"] == {"age": 7, "plan": "Free"}
