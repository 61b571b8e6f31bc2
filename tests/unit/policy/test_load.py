"""The policies as a whole: the contents of a valid set, and the profile that governs each campaign."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from engine.errors import InvalidSource, NotFound
from engine.policy.difference import differences
from engine.policy.load import load_policies
from engine.policy.models import CampaignKind, Cost, Guarantee, LaneKind
from engine.policy.policyset import CampaignFacts, PolicySet

POLICIES = Path(__file__).parents[3] / "policies"
FACTS = CampaignFacts("shop", "winback", CampaignKind.CONTINUOUS, Cost.QUICK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(POLICIES, tmp_path / "policies")
    return tmp_path / "policies"


def _profile(folder: Path, name: str, more: str) -> None:
    (folder / "profiles" / f"{name}.yaml").write_text(f"profile: {name}\nlane: fast\n{more}", encoding="utf-8")


def test_the_shipped_policies_are_valid() -> None:
    policies = load_policies(POLICIES)
    assert set(policies.profiles) == {"default", "lifecycle", "bulk"}
    assert policies.profiles["lifecycle"].pass_every == timedelta(minutes=1)
    assert policies.lane("deliver").kind is LaneKind.DELIVER
    assert policies.lane("control").kind is LaneKind.INTERNAL


def test_suspects_have_their_own_fleet_of_one_thread() -> None:
    policies = load_policies(POLICIES)
    assert policies.fleet_names("suspect") == ("suspect",)
    assert policies.fleets["suspect"].workers == 1


def test_room_in_a_lane_is_its_depth_for_each_worker_thread() -> None:
    policies = load_policies(POLICIES)
    assert policies.room("fast") == 4 * 4
    assert policies.room("suspect") == 1


def test_an_unknown_lane_is_not_found() -> None:
    with pytest.raises(NotFound, match="no lane fasst"):
        load_policies(POLICIES).lane("fasst")


def test_a_recorded_version_round_trips() -> None:
    policies = load_policies(POLICIES)
    back = PolicySet.from_plain(policies.plain())
    assert (back.version, differences(policies, back)) == (policies.version, [])


def test_a_comment_does_not_make_a_new_version_and_a_value_does(folder: Path) -> None:
    before = load_policies(folder)
    profile = folder / "profiles" / "default.yaml"
    text = profile.read_text(encoding="utf-8")
    profile.write_text(f"# new comment\n{text}", encoding="utf-8")
    assert load_policies(folder).version == before.version
    profile.write_text(text.replace("45d", "30d"), encoding="utf-8")
    after = load_policies(folder)
    assert after.version != before.version
    assert [str(difference) for difference in differences(before, after)] == [
        "profiles.default.inactivity: 30d (was 45d)"
    ]


def test_the_profile_that_a_campaign_names_governs_it() -> None:
    policies = load_policies(POLICIES)
    assert policies.profile_for(replace(FACTS, profile="bulk")).profile == "bulk"


def test_a_campaign_whose_profile_is_gone_is_governed_by_a_matching_one() -> None:
    assert load_policies(POLICIES).profile_for(replace(FACTS, profile="gone")).profile == "lifecycle"


def test_a_campaign_that_no_profile_matches_is_governed_by_default() -> None:
    assert load_policies(POLICIES).profile_for(replace(FACTS, cost=Cost.SLOW)).profile == "default"


def test_the_highest_priority_wins_and_of_equals_the_first_by_name(folder: Path) -> None:
    _profile(folder, "zeta", "priority: 20\nmatches: {campaign: [win*, back]}\n")
    _profile(folder, "alpha", 'priority: 20\nmatches: {workspace: "sho?"}\n')
    policies = load_policies(folder)
    assert policies.profile_for(FACTS).profile == "alpha"
    assert policies.profile_for(replace(FACTS, workspace="other")).profile == "zeta"
    assert policies.profile_for(replace(FACTS, workspace="other", campaign="third")).profile == "lifecycle"


def test_a_profile_without_match_governs_only_campaigns_that_name_it(folder: Path) -> None:
    _profile(folder, "special", "priority: 1000\n")
    policies = load_policies(folder)
    assert policies.profile_for(FACTS).profile == "lifecycle"
    assert policies.profile_for(replace(FACTS, profile="special")).profile == "special"


def test_at_most_once_marks_one_delivery_at_a_time_by_default(folder: Path) -> None:
    _profile(folder, "careful", "delivery: at_most_once\n")
    _profile(folder, "daring", "channels: {email: {delivery: at_most_once, window: 5}}\n")
    policies = load_policies(folder)
    careful, daring, usual = (policies.profiles[name] for name in ("careful", "daring", "default"))
    assert (careful.guarantee("email"), careful.window_of("email")) == (Guarantee.AT_MOST_ONCE, 1)
    assert (daring.guarantee("email"), daring.window_of("email")) == (Guarantee.AT_MOST_ONCE, 5)
    assert (daring.guarantee("sms"), daring.window_of("sms")) == (Guarantee.AT_LEAST_ONCE, 1_000)
    assert (usual.guarantee("email"), usual.window_of("email")) == (Guarantee.AT_LEAST_ONCE, 1_000)
    assert usual.guarantee("email", at_most_once=True) is Guarantee.AT_MOST_ONCE
    assert usual.window_of("email", at_most_once=True) == 1
    assert careful.guarantee("email", at_most_once=False) is Guarantee.AT_LEAST_ONCE


def test_mistakes_of_all_files_are_reported_at_once(folder: Path) -> None:
    _profile(folder, "one", "weight: 0\nin_flight: many\n")
    _profile(folder, "two", "inactivty: 3d\n")
    lanes = folder / "lanes.yaml"
    lanes.write_text(lanes.read_text(encoding="utf-8").replace("[slow, index]", "[slow]"), encoding="utf-8")
    with pytest.raises(InvalidSource) as refused:
        load_policies(folder)
    places = [(fault.mark.path, fault.where) for fault in refused.value.faults]
    assert places == [
        ("policies/lanes.yaml", "lanes.index"),
        ("policies/profiles/one.yaml", "weight"),
        ("policies/profiles/one.yaml", "in_flight"),
        ("policies/profiles/two.yaml", "inactivty"),
    ]


def test_a_file_that_would_not_be_read_is_a_mistake(folder: Path) -> None:
    (folder / "profiles" / "slow.yml").write_text("profile: slow\nlane: slow\n", encoding="utf-8")
    with pytest.raises(InvalidSource, match=r"slow.yml.*rename it to slow.yaml"):
        load_policies(folder)


def test_leftovers_of_editors_are_not_read(folder: Path) -> None:
    for name in (".#lock.yaml", "bulk.yaml~", "bulk.yaml.swp", "#bulk.yaml#", "README.md"):
        (folder / "profiles" / name).write_text("no policy", encoding="utf-8")
    assert len(load_policies(folder).profiles) == 3


@pytest.mark.parametrize("gone", ["lanes.yaml", "profiles/default.yaml"])
def test_a_set_without_lanes_or_default_is_refused(gone: str, folder: Path) -> None:
    (folder / gone).unlink()
    with pytest.raises(InvalidSource, match=r"lanes.yaml|default"):
        load_policies(folder)


def test_a_missing_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="run tidegate init"):
        load_policies(tmp_path / "policies")


def test_an_edited_file_is_read_in_place_of_the_saved_one(folder: Path, tmp_path: Path) -> None:
    edited = tmp_path / "bulk.yaml"
    edited.write_text("profile: bulk\nlane: slow\nweight: 3\n", encoding="utf-8")
    assert load_policies(folder, edited=edited).profiles["bulk"].weight == 3
    assert load_policies(folder).profiles["bulk"].weight == 0.5
