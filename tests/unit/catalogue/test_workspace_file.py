from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalogue.catalogue import BUILTINS, Aggregate
from engine.catalogue.values import FieldType
from engine.catalogue.workspace_file import read_workspace, read_workspaces, workspace_of
from engine.catalogue.workspace_set import WorkspaceSet
from engine.errors import InvalidSource
from engine.yamlfile.nodes import parse

GOOD = """\
workspace: grocer
timezone: America/New_York
sender: {name: Grocer, address: news@grocer.example}
attributes:
  age: string
  plan: {type: string, case: ignore}
  tags: {type: string, many: true}
events:
  Order Completed: {value: {type: decimal, scale: 2}, departments: {type: string, many: true}}
  Coupon Redeemed: {}
aggregates:
  orders_count: {event: Order Completed, count: true}
  last_order_at: {event: Order Completed, last: true}
  first_order_at: {event: Order Completed, first: true}
  orders_value: {event: Order Completed, sum: value}
"""


def test_a_workspace_declares_attributes_events_and_aggregates(tmp_path: Path) -> None:
    path = tmp_path / "grocer.yaml"
    path.write_text(GOOD)
    catalogue = read_workspace(path)
    assert catalogue.workspace == "grocer"
    assert catalogue.timezone == "America/New_York"
    assert catalogue.sender is not None
    assert catalogue.sender.address == "news@grocer.example"
    assert set(BUILTINS) < set(catalogue.fields)
    assert catalogue.fields["plan"].case_ignored
    assert catalogue.fields["plan"].mongo_path == "k.plan"
    assert catalogue.fields["plan"].elastic_path == "k.a:plan"
    assert catalogue.fields["user_id"].mongo_path == "u"
    assert catalogue.fields["tags"].many
    assert catalogue.fields["last_order_at"].type is FieldType.TIME
    assert catalogue.fields["last_order_at"].mongo_path == "g.last_order_at"
    assert (catalogue.fields["orders_value"].type, catalogue.fields["orders_value"].scale) == (FieldType.DECIMAL, 2)
    assert catalogue.aggregates["orders_value"] == Aggregate("orders_value", "Order Completed", "sum", "value")
    assert catalogue.events["Order Completed"].properties["value"].scale == 2


def test_a_folder_of_workspaces_reports_the_faults_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "grocer.yaml").write_text(GOOD)
    (tmp_path / "a.yaml").write_text("workspace: b\n")
    (tmp_path / "c.yaml").write_text("workspace: c\nattributes: {x: strin}\n")
    with pytest.raises(InvalidSource) as caught:
        read_workspaces(tmp_path)
    assert [Path(fault.mark.path).name for fault in caught.value.faults] == ["a.yaml", "c.yaml"]
    for name in ("a.yaml", "c.yaml"):
        (tmp_path / name).unlink()
    assert list(read_workspaces(tmp_path)) == ["grocer"]


BROKEN = [
    ("timezone: UTC", "1:1", "workspace is missing"),
    ("workspace: Grocer Inc", "1:12", "is not a valid name"),
    ("workspace: w\nattribute: {}", "2:1", "attribute: unknown key (did you mean attributes?)"),
    ("workspace: w\nlocale: germany", "2:9", "write e.g. de or de_AT"),
    ("workspace: w\ncurrency: euro", "2:11", "write its three letters"),
    ("workspace: w\nsender: {name: a, address: a@b.c, reply_to: b}", "2:45", "not an e-mail address"),
    ("workspace: w\nsender: {name: a, address: a@b.c, bounces: b@c.d}", "2:35", "unknown key"),
    ("workspace: w\ntimezone: Amerika/New_York", "2:11", "did you mean America/New_York?"),
    ("workspace: w\nsender: {name: W}", "2:9", "address is missing"),
    ("workspace: w\nsender: {name: W, address: nobody}", "2:28", "is not an e-mail address"),
    ("workspace: w\nattributes: [a]", "2:13", "expected keys with values"),
    ("workspace: w\nattributes:\n  age: strng", "3:8", "attributes.age: 'strng' is not a type (did you mean string?)"),
    ("workspace: w\nattributes:\n  age: int", "3:8", "did you mean integer?"),
    ("workspace: w\nattributes:\n  age: {many: true}", "3:8", "type is missing"),
    ("workspace: w\nattributes:\n  age: {type: text}", "3:15", "did you mean string?"),
    ("workspace: w\nattributes:\n  vip: {type: boolean, many: true}", "3:30", "an array of boolean is not supported"),
    ("workspace: w\nattributes:\n  tags: {type: string, many: 1}", "3:30", "expected true or false"),
    ("workspace: w\nattributes:\n  n: {type: number, case: ignore}", "3:27", "a number has no case"),
    ("workspace: w\nattributes:\n  n: {type: string, case: no-matter}", "3:27", "expected ignore or keep"),
    ("workspace: w\nattributes:\n  d: decimal", "3:3", "write {type: decimal, scale: 2}"),
    ("workspace: w\nattributes:\n  d: {type: decimal, scale: 10}", "3:29", "from 0 to 9"),
    ("workspace: w\nattributes:\n  d: {type: string, scale: 2}", "3:28", "a string has no scale"),
    ("workspace: w\nattributes:\n  d: {type: string, skale: 2}", "3:21", "did you mean scale?"),
    ("workspace: w\nattributes:\n  email: string", "3:3", "is built in"),
    ("workspace: w\nattributes:\n  none: string", "3:3", "is a word of the predicate language"),
    ("workspace: w\nattributes:\n  a.b: string", "3:3", "did you mean a_b?"),
    ("workspace: w\nattributes:\n  $x: string", "3:3", "is not a valid name"),
    ("workspace: w\nevents:\n  order.completed: {}", "3:3", "did you mean order_completed?"),
    ("workspace: w\nevents:\n  Order: {a b: string}", "3:11", "is not a valid name"),
    ("workspace: w\nevents:\n  Order: {value: money}", "3:18", "did you mean decimal?"),
    ("workspace: w\naggregates:\n  n: {event: Order, count: true}", "3:14", "no event is called 'Order'"),
    ("workspace: w\nevents: {Order: {}}\naggregates:\n  n: {event: Order}", "4:6", "exactly one of count"),
    ("workspace: w\nevents: {Order: {}}\naggregates:\n  n: {event: Order, count: 1}", "4:28", "write count: true"),
    ("workspace: w\nevents: {Order: {}}\naggregates:\n  n: {event: Order, sum: valu}", "4:26", "no property 'valu'"),
    (
        "workspace: w\nevents: {Order: {v: number}}\naggregates:\n  n: {event: Order, sum: v}",
        "4:26",
        "number cannot be summed (declare it as decimal or integer: sums are exact)",
    ),
    (
        "workspace: w\nattributes: {x: string}\nevents: {Order: {}}\naggregates:\n  x: {event: Order, count: true}",
        "5:3",
        "is an attribute too",
    ),
]


@pytest.mark.parametrize(("text", "place", "said"), BROKEN, ids=[said for *_, said in BROKEN])
def test_a_broken_workspace_is_refused_at_its_place(text: str, place: str, said: str) -> None:
    with pytest.raises(InvalidSource) as caught:
        workspace_of(parse(text, "w.yaml"))
    assert str(caught.value.faults[0]).startswith(f"w.yaml:{place}: ")
    assert said in str(caught.value.faults[0])


def test_the_version_of_workspaces_does_not_depend_on_where_their_files_lie(tmp_path: Path) -> None:
    """Processes may name the folder differently, and machines may keep it in different places."""
    versions = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "grocer.yaml").write_text(GOOD)
        versions.add(WorkspaceSet(read_workspaces(folder)).version)
    assert len(versions) == 1


def test_a_file_has_the_name_of_its_workspace(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(GOOD)
    with pytest.raises(InvalidSource, match=r"shop.yaml:1:12: workspace: the file is called shop \(write w"):
        read_workspace(path)
