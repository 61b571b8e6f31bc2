"""The e-mail experiment on a sample with planted figures: the reports count events after `finished`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.load import load_campaign
from engine.cli.campaign_output import report_document
from engine.errors import WrongCall
from engine.pipeline.importing.job import Kind, Order
from engine.pipeline.importing.run_import import run_import
from examples.hillstrom.data import ARMS, DAY, DAYS, SENT, WORKSPACE, Figures, customers, figures, write_files
from examples.hillstrom.experiment import CAMPAIGNS, HERE, perform, table_row
from examples.hillstrom.sample import PLANTED, write_sample
from tests.acceptance.conftest import Tidegate
from tests.support.pipeline_world import World


class OneThread:
    """The engine of the experiment in one thread: real stores, real use cases, a real Maildir."""

    def __init__(self, world: World) -> None:
        self.world = world

    def import_users(self, file: Path) -> int:
        return self._bring_in(Order(Kind.USERS, file))

    def import_events(self, file: Path) -> int:
        return self._bring_in(Order(Kind.EVENTS, file))

    def apply(self, file: Path) -> None:
        app = self.world.app
        app.commands.apply(load_campaign(file, app.catalogues, app.policies))

    def launch(self, campaign: str) -> None:
        self.world.launch(campaign)

    def advance(self, to: int) -> None:
        self.world.advance(to=to)

    def wait_until_nothing_is_open(self, patience: timedelta) -> None:
        self.world.settle()

    def report(self, campaign: str) -> Mapping[str, Any]:
        return report_document(self.world.app.plans.report(self.world.record(campaign)))

    def _bring_in(self, order: Order) -> int:
        app = self.world.app
        summary = run_import(order, app.campaign_cache.catalogue(WORKSPACE), app.imports(WORKSPACE))
        assert summary.rejected == 0
        return summary.rows


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    world = make_world(at=SENT - DAY, reconcile="900d")
    shutil.copy(HERE / "conf/workspaces/hillstrom.yaml", world.folder / "conf/workspaces")
    world.close()
    world.app = world.open()
    return world


def test_the_reports_have_the_numbers_of_the_file_though_every_campaign_was_finished_before(
    world: World, tidegate: Tidegate, tmp_path: Path
) -> None:
    file, said = tmp_path / "sample.csv", list[str]()
    write_sample(file)
    assert perform(OneThread(world), file, tmp_path / "imports", said.append) == PLANTED
    assert said[1].startswith("all campaigns are finished")
    by_name = {name: tidegate("campaign", "report", name, "--json").document for name in CAMPAIGNS}
    assert {arm: table_row(by_name[f"{arm}-visits"], by_name[f"{arm}-purchases"]) for arm in ARMS} == PLANTED
    assert {report["state"] for report in by_name.values()} == {"finished"}
    assert {report["conversions"]["until"] for report in by_name.values()} == {"2008-03-20T14:00:00.000Z"}
    assert by_name["mens-visits"]["conversions"]["treated"] == {"entered": 213, "converted": 39, "rate": 39 / 213}
    assert by_name["control-visits"]["messages"] == {"nothing": {"decided": 213, "skipped(too_late)": 213}}
    mailed = {mail.user for mail in world.mails()}
    assert len(world.mails()) == len(mailed) == PLANTED["mens"].entered + PLANTED["womens"].entered
    text = tidegate("campaign", "report", "womens-purchases").out
    assert "conversions counted until 2008-03-20T14:00:00.000Z" in text


def test_the_files_hold_every_row_once_and_no_event_outside_the_two_weeks(tmp_path: Path) -> None:
    file = tmp_path / "sample.csv"
    planted = {"mens": Figures(1_000, 183, 12), "womens": Figures(900, 140, 0), "control": Figures(0, 0, 0)}
    write_sample(file, planted, seed=1)
    assert figures(file) == planted
    days = write_files(file, tmp_path / "out")
    lines = [line for path in days for line in path.read_text().splitlines()]
    assert (len(days), len(lines), len(set(lines))) == (DAYS, 183 + 12 + 140, 183 + 12 + 140)
    assert len((tmp_path / "out/users.ndjson").read_text().splitlines()) == 1_900
    assert all(path.stat().st_size for path in days), "each day has some"
    moments = [customer.visited_at for customer in customers(file)]
    assert SENT < min(moments) < max(moments) + 600_000 < SENT + DAYS * DAY
    again = tmp_path / "again.csv"
    write_sample(again, planted, seed=1)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("segment,visit", "arm,visit", "it has no column segment"),
        ("Mens E-Mail", "Pets E-Mail", "row 1: no segment is called 'Pets E-Mail'"),
        (",1,0,0", ",yes,0,0", "row 1: 'yes' is neither 0 nor 1"),
    ],
)
def test_another_file_is_refused_with_the_row(tmp_path: Path, old: str, new: str, problem: str) -> None:
    file = tmp_path / "sample.csv"
    write_sample(file, {"mens": Figures(1, 1, 0)})
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(WrongCall, match=problem):
        figures(file)
    with pytest.raises(WrongCall, match="cannot be read"):
        figures(tmp_path / "nothing.csv")
