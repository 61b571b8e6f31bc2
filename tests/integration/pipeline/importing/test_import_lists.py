"""Lists from files: members are the truth, users hold a copy."""

from __future__ import annotations

from typing import Any

from engine.domain.keys import HIGHEST, user_key


def members(importer: Any, name: str) -> list[str]:
    return sorted(key.rsplit("/", 1)[1] for key in importer.lists.read_range("shop", name, "0", HIGHEST, 1_000_000))


def lists(importer: Any) -> dict[str, list[str]]:
    return {user: document.get("lists", []) for user, document in importer.stored_users().items()}


def test_members_are_added_and_noted_in_their_users(importer: Any) -> None:
    importer.run("users", importer.write("u.csv", "user_id,age\nu1,7\n"))
    before = importer.users.get(user_key("shop", "u1"))
    path = importer.write("a.csv", "user_id\nu1\nu2\nu1\n\n,\n")
    summary = importer.run("lists", path, list_name="vips / best")
    assert summary.counts == {"created": 2, "updated": 0, "unchanged": 0, "repeated": 1, "rejected": 1}
    assert members(importer, "vips / best") == ["u1", "u2"]
    assert lists(importer) == {"u1": ["vips / best"], "u2": ["vips / best"]}
    after = importer.users.get(user_key("shop", "u1"))
    assert after["rev"] > before["rev"]
    assert after["changed"] == ["list:vips / best"]
    again = importer.run("lists", path, list_name="vips / best")
    assert again.counts["unchanged"] == 2
    assert importer.users.get(user_key("shop", "u1")) == after
    importer.run("lists", importer.write("b.csv", "user_id\nu2\n"), list_name="a")
    assert importer.lists.names("shop") == ["a", "vips / best"]
    assert lists(importer)["u2"] == ["a", "vips / best"]
    assert importer.lists.size("shop", "a") == 1


def test_a_replacement_ends_the_memberships_that_the_file_does_not_name(importer: Any, program: Any) -> None:
    first = importer.write("a.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(300)))
    importer.run("lists", first, list_name="l")
    importer.run("lists", first, list_name="other")
    second = importer.write("b.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(200, 400)))
    result = program.run(importer, "lists", second, order={"list_name": "l", "mode": "replace", "batch": 90})
    assert result["removed"] == 200
    assert (result["created"], result["unchanged"]) == (100, 100)
    assert members(importer, "l") == sorted(f"u{n}" for n in range(200, 400))
    assert {user for user, names in lists(importer).items() if "l" in names} == {f"u{n}" for n in range(200, 400)}
    assert {user for user, names in lists(importer).items() if "other" in names} == {f"u{n}" for n in range(300)}


def test_a_killed_replacement_resumes_and_removes_no_member_in_the_file(importer: Any, program: Any) -> None:
    first = importer.write("a.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(300)))
    importer.run("lists", first, list_name="l")
    second = importer.write("b.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(200, 400)))
    order = {"list_name": "l", "mode": "replace", "batch": 50}
    for die in ({"add": 2}, {"save": 1}, {"remove_others": 1}):
        program.run_and_die(importer, "lists", second, order=order, die=die)
    program.run(importer, "lists", second, order=order)
    assert members(importer, "l") == sorted(f"u{n}" for n in range(200, 400))
    assert {user for user, names in lists(importer).items() if names} == {f"u{n}" for n in range(200, 400)}


def test_a_replacement_with_too_many_rejected_rows_removes_nobody(importer: Any) -> None:
    importer.run("lists", importer.write("a.csv", "user_id\nu1\nu2\n"), list_name="l")
    summary = importer.run("lists", importer.write("b.csv", 'user_id\n" u1"\nu3\n'), list_name="l", mode="replace")
    assert not summary.within_limit
    assert members(importer, "l") == ["u1", "u2", "u3"]


def test_members_are_removed_and_an_unknown_user_is_not_created(importer: Any) -> None:
    importer.run("lists", importer.write("a.csv", "user_id\nu1\nu2\n"), list_name="l")
    summary = importer.run("lists", importer.write("b.csv", "user_id\nu1\nu9\nu1\n"), list_name="l", mode="remove")
    assert summary.counts == {"created": 0, "updated": 1, "unchanged": 1, "repeated": 1, "rejected": 0}
    assert members(importer, "l") == ["u2"]
    assert lists(importer) == {"u1": [], "u2": ["l"]}


def test_a_deleted_user_loses_memberships_and_gains_none(importer: Any) -> None:
    path = importer.write("a.csv", "user_id\nu1\nu2\n")
    importer.run("lists", path, list_name="l")
    key = user_key("shop", "u1")
    importer.users.delete(key)
    assert importer.lists.erase(key) == 1
    summary = importer.run("lists", path, list_name="l")
    assert summary.counts["rejected"] == 1
    assert members(importer, "l") == ["u2"]
    importer.database["list_members"].insert_one({"_id": f"shop/l/{key.split('/', 1)[1]}"})
    importer.lists.derive("l", [key])
    assert members(importer, "l") == ["u2"]
    assert importer.users.get(key)["deleted"] is True


def test_ndjson_lists_take_plain_ids(importer: Any) -> None:
    importer.run("lists", importer.write("a.ndjson", '"u1"\n{"user_id": "u2"}\n'), list_name="l")
    assert members(importer, "l") == ["u1", "u2"]
