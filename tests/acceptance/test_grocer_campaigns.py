"""The example's own files are valid, and say what the oracle computes."""

from __future__ import annotations

from pathlib import Path

from examples.grocer import campaign_files, data, oracle


def test_a_replay_has_the_four_continuous_campaigns_and_its_list_campaigns(tmp_path: Path) -> None:
    names = [path.stem for path in campaign_files.write_campaigns(tmp_path, data.THIRTEEN_WEEKS)]
    assert names == [*campaign_files.CONTINUOUS, "list-01", "list-02", "list-03", "list-04", "list-27"]
    assert len(campaign_files.write_campaigns(tmp_path / "year", data.YEAR)) == 4 + 27


def test_the_files_of_a_replay_are_the_campaigns_of_the_oracle(tmp_path: Path) -> None:
    written = {path.stem for path in campaign_files.write_campaigns(tmp_path, data.FORTNIGHT)}
    assert written == {mail.campaign for mail in oracle.expected(data.FORTNIGHT.first, data.FORTNIGHT.last)}
