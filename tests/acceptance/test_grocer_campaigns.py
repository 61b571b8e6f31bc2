"""The example's own files are valid, and describe what the oracle computes."""

from __future__ import annotations

from pathlib import Path

from engine.campaign.load import load_campaign
from engine.catalogue.workspace_file import read_workspaces
from engine.policy.load import load_policies
from examples.grocer import campaign_files, data, oracle

HERE = Path(data.__file__).parent


def test_a_replay_has_the_four_continuous_campaigns_and_its_list_campaigns(tmp_path: Path) -> None:
    names = [path.stem for path in campaign_files.write_campaigns(tmp_path, data.THIRTEEN_WEEKS)]
    assert names == [*campaign_files.CONTINUOUS, "list-01", "list-02", "list-03", "list-04", "list-27"]
    assert len(campaign_files.write_campaigns(tmp_path / "year", data.YEAR)) == 4 + 27


def test_the_files_of_a_replay_are_the_campaigns_of_the_oracle(tmp_path: Path) -> None:
    written = {path.stem for path in campaign_files.write_campaigns(tmp_path, data.FORTNIGHT)}
    assert written == {mail.campaign for mail in oracle.expected(data.FORTNIGHT.first, data.FORTNIGHT.last)}


def test_every_campaign_file_is_valid_and_event_counts_run_in_the_slow_lane(tmp_path: Path) -> None:
    catalogues = read_workspaces(HERE / "conf" / "workspaces")
    policies = load_policies(HERE / "policies")
    lanes = {}
    for path in campaign_files.write_campaigns(tmp_path, data.YEAR):
        loaded = load_campaign(path, catalogues, policies)
        assert loaded.file.campaign == path.stem
        lanes[path.stem] = policies.profile_for(loaded.facts).lane
    slow = {name for name, lane in lanes.items() if lane == "slow"}
    assert slow == {"big-spender", "deli-no-seafood", "redeemed-and-back"}


def test_messages_have_the_names_that_the_oracle_expects(tmp_path: Path) -> None:
    catalogues = read_workspaces(HERE / "conf" / "workspaces")
    policies = load_policies(HERE / "policies")
    files = campaign_files.write_campaigns(tmp_path, data.FORTNIGHT)
    written = {
        (path.stem, message.name)
        for path in files
        for message in load_campaign(path, catalogues, policies).file.messages
    }
    mails = oracle.expected(data.FORTNIGHT.first, data.FORTNIGHT.last)
    assert written == {(mail.campaign, mail.message) for mail in mails}
