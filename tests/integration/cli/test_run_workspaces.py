"""Edited workspace files are in force in every real process within five seconds, without a restart."""

from __future__ import annotations

import yaml

from engine.clock import parse_instant
from tests.support.installation import Installation
from tests.support.pipeline_shop import SHOP

SECONDS = 5_000
"""Milliseconds within which an edit is in force."""

PROCESSES = (("clock", "run"), ("feed",), ("worker", "all"))


def test_an_edit_is_in_force_in_every_process_within_five_seconds(installation: Installation) -> None:
    """Clock, feed and workers run as in the Procfile; campaigns of a new field and a new workspace apply at once."""
    world = installation.world
    world.user("before", plan="gold")
    processes = [installation.start(*arguments) for arguments in PROCESSES]
    installation.until(lambda: len(installation.lines("worker.started")) == len(PROCESSES), "the processes")
    world.apply({"campaign": "old", "audience": {"plan": "gold"}})
    world.launch("old")
    installation.until(lambda: len(world.mails()) == 1, "the first mail", processes[2])

    edited = world.app.system.system_now()
    world.workspace(attributes={**dict(SHOP["attributes"]), "tier": "string"})  # type: ignore[call-overload]  # a table
    world.workspace("fresh")
    world.reload()
    world.apply({"campaign": "new", "audience": {"tier": "gold"}})
    world.launch("new")
    world.apply({"workspace": "fresh", "campaign": "first"})
    world.launch("first")
    world.user("someone", workspace="fresh")
    world.user("after", plan="gold", tier="gold")
    installation.until(lambda: len(world.mails()) == 4, "the mails to whom both let in", processes[2])
    both = {"workspace_set": world.app.catalogues.version}  # a process may have read the state between the two writes
    installation.until(
        lambda: len(installation.lines("workspace.swapped", **both)) == len(PROCESSES), "the edit everywhere"
    )
    for line in installation.lines("workspace.swapped", **both):
        assert parse_instant(line["@timestamp"]) - edited < SECONDS
    failed = [*installation.lines("slice.failed"), *installation.lines("run.failed")]
    assert not failed, [line.get("error") for line in failed]
    assert world.record("new").stuck is None

    path = world.folder / "conf/workspaces/shop.yaml"
    good = path.read_text()
    document = yaml.safe_load(good)
    del document["attributes"]["tier"]
    path.write_text(yaml.safe_dump(document))
    installation.until(lambda: world.record("new").stuck, "the mark of the campaign that does not fit")
    world.user("third", plan="gold", tier="gold")
    world.reload()
    spoken = {name: installation.call(*command).out for name, command in COMMANDS.items()}
    assert {name for name, out in spoken.items() if "tier" not in out} == set()
    assert installation.call("check").code == 1
    advanced = installation.call("clock", "advance", "--by", "1d", "--patience", "60s")
    assert advanced.code == 1
    assert "campaign new is stuck" in advanced.err
    assert len(installation.lines("campaign.stuck")) == 1
    assert len(installation.lines("slice.failed")) <= 3

    path.write_text(good)
    installation.until(lambda: world.record("new").stuck is None, "the mark to be taken away")
    installation.until(lambda: len(world.mails()) == 6, "the mail to whom the change had let in meanwhile")
    assert [installation.end(process) for process in processes] == [0] * len(PROCESSES)


COMMANDS = {
    "report": ("campaign", "report", "new"),
    "show": ("campaign", "show", "new", "--json"),
    "list": ("campaign", "list", "--json"),
    "explain": ("explain", "new", "third"),
    "check": ("check", "--json"),
}
