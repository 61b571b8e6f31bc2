"""A command imports only the modules that it uses: importing everything takes longer than most commands do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine.local.processes.instance_lock import InstanceLock
from tests.acceptance.test_cli_help import NAMES
from tests.support.installation import Installation

CLIENTS = {"elasticsearch", "elastic_transport", "pymongo", "redis", "requests", "urllib3"}
HEAVY = CLIENTS | {"dramatiq", "liquid", "numpy", "pandas", "pyarrow", "rich", "structlog"}
RUN = """
import json, sys
from engine.cli.main import run
codes = [run(words) for words in json.loads(sys.argv[1])]
roots = {name.partition(".")[0] for name in sys.modules}
rooms = {".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("engine.")}
print(json.dumps([codes, sorted(roots), sorted(rooms)]))
"""


def imported(installation: Installation | None, *commands: list[str]) -> tuple[list[int], set[str], set[str]]:
    """Run commands one after another in one fresh process; return their exit codes and the imported packages."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=None if installation is None else installation.folder,
        env=None if installation is None else installation.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, roots, rooms = json.loads(done.stdout.splitlines()[-1])
    return codes, set(roots), set(rooms)


def test_the_help_of_all_commands_imports_only_the_command_line_library() -> None:
    codes, roots, rooms = imported(None, ["--help"], *([*name.split(), "--help"] for name in NAMES))
    assert set(codes) == {0}
    assert roots & HEAVY == set()
    assert not rooms & {"engine.app", "engine.stores", "engine.campaign", "engine.policy"}


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("check --origin", set()),
        ("policy check", set()),
        ("campaign list", {"pymongo"}),
        ("campaign show hello", {"pymongo"}),
        ("campaign report hello", {"pymongo"}),
        ("explain hello u1", {"pymongo", "liquid"}),
        ("clock show", {"pymongo", "redis"}),
        ("stats", {"pymongo", "redis"}),
        ("campaign plan hello", {"pymongo", "redis", "liquid"}),
        ("campaign cancel hello", {"pymongo", "redis", "liquid"}),
        ("queue list", {"pymongo", "redis", "dramatiq", "structlog", "rich"}),
    ],
)
def test_an_everyday_command_imports_only_the_clients_that_it_uses(
    command: str, needs: set[str], installation: Installation
) -> None:
    installation.world.user("u1")
    installation.world.apply({"campaign": "hello", "kind": "continuous"})
    installation.world.launch("hello")
    codes, roots, _ = imported(installation, command.split())
    assert codes == [0]
    assert roots & HEAVY == needs


def test_status_asks_mongodb_alone(installation: Installation) -> None:
    """There, processes of other machines report, and all processes note what of the policies they do not follow."""
    codes, roots, _ = imported(installation, ["status"])
    assert codes == [1], "no process runs anywhere"
    assert roots & HEAVY == {"pymongo"}
    with InstanceLock(installation.folder / "var").held():
        codes, roots, _ = imported(installation, ["status"])
    assert codes == [0]
    assert roots & HEAVY == {"pymongo"}
