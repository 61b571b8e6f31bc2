"""The effect of an edited campaign on enrolled users, and the rule of `was:`."""

from __future__ import annotations

from typing import Any

from engine.campaign.changes import Aliases, Concern, carry_aliases, changes, edit_faults, renames
from engine.campaign.model import CampaignFile
from engine.yamlfile.models import validate
from engine.yamlfile.nodes import Node, node_of


def _message(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "channel": "email", "subject": "Hello", "body": "Hi", **more}


def _plain(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    start: dict[str, Any] = {"campaign": "c", "workspace": "w", "kind": "continuous", "audience": {"plan": "pro"}}
    return {**start, "messages": list(messages) or [_message("one")], **more}


def _node(plain: dict[str, Any]) -> Node:
    return node_of(plain, "campaign.yaml")


def _file(*messages: dict[str, Any], **more: Any) -> CampaignFile:
    return validate(CampaignFile, _node(_plain(*messages, **more)))


def _faults(old: CampaignFile, *messages: dict[str, Any], aliases: Aliases | None = None, **more: Any) -> list[str]:
    plain = _plain(*messages, **more)
    faults = edit_faults(old, validate(CampaignFile, _node(plain)), _node(plain), aliases)
    return [str(fault) for fault in faults]


def test_the_same_file_changes_nothing() -> None:
    assert changes(_file(), _file()) == []


def test_each_changed_part_is_reported_once() -> None:
    new = _file(
        audience={"plan": "free"},
        entry={"again_after": "90d"},
        exit={"unmatched": False, "when": {"plan": "gone"}},
        goal={"plan": "gold"},
        holdout="10%",
        profile="bulk",
        starts_at="2026-12-01",
        ends_at="2027-12-01",
        at_most_once=True,
    )
    concerns = [change.concern for change in changes(_file(), new)]
    assert concerns == [
        Concern.AUDIENCE,
        Concern.TIMES,
        Concern.TIMES,
        Concern.PROFILE,
        Concern.ENTRY,
        Concern.EXIT,
        Concern.EXIT,
        Concern.GOAL,
        Concern.HOLDOUT,
        Concern.DELIVERY,
    ]


def test_a_new_audience_reports_who_leaves() -> None:
    texts = [change.text for change in changes(_file(), _file(audience={"plan": "free"}))]
    assert texts == ["the audience changes: enrolled users who do not match it leave"]


def test_a_new_message_reaches_those_still_active() -> None:
    texts = [change.text for change in changes(_file(), _file(_message("one"), _message("two")))]
    assert texts == ['"two" is new: it reaches active users, not those who have left']


def test_a_renamed_message_is_reported_with_its_other_changes() -> None:
    texts = [change.text for change in changes(_file(), _file(_message("uno", was="one", wait="1d", body="Ciao")))]
    assert texts[0] == '"uno" was "one": users who got that do not get it again'
    assert texts[1].startswith('"uno" waits 1d (was 0s)')
    assert texts[2].startswith('"uno" has another body')
    assert len(texts) == 3


def test_a_changed_order_is_reported() -> None:
    old, new = _file(_message("a"), _message("b")), _file(_message("b"), _message("a"))
    assert [change.concern for change in changes(old, new)] == [Concern.MESSAGES]


def test_removing_one_message_and_adding_another_needs_was() -> None:
    faults = _faults(_file(_message("one")), _message("uno"))
    assert len(faults) == 1
    assert "write was: one if it is the same message, was: none if it is not" in faults[0]


def test_was_resolves_an_ambiguous_rename() -> None:
    assert _faults(_file(_message("one")), _message("uno", was="one")) == []
    assert _faults(_file(_message("one")), _message("uno", was="none")) == []


def test_only_adding_or_only_removing_needs_no_was() -> None:
    assert _faults(_file(_message("one")), _message("one"), _message("two")) == []
    assert _faults(_file(_message("one"), _message("two")), _message("one")) == []


def test_was_must_name_a_previous_message() -> None:
    faults = _faults(_file(_message("one")), _message("uno", was="onne"))
    assert faults == [
        'campaign.yaml:1:1: messages[0].was: the applied campaign has no message "onne" to rename (did you mean "one"?)'
    ]


def test_an_applied_was_may_stay_in_the_file() -> None:
    renamed = _file(_message("uno", was="one"))
    aliases = carry_aliases({}, _file(_message("one")), renamed)
    assert aliases == {"uno": ("one",)}
    assert _faults(renamed, _message("uno", was="one"), aliases=aliases) == []
    assert carry_aliases(aliases, renamed, renamed) == aliases


def test_aliases_follow_a_message_through_every_rename() -> None:
    first, second, third = _file(_message("a")), _file(_message("b", was="a")), _file(_message("c", was="b"))
    aliases = carry_aliases(carry_aliases({}, first, second), second, third)
    assert aliases == {"c": ("a", "b")}
    assert renames(second, third) == {"c": "b"}


def test_an_existing_message_cannot_be_declared_a_rename_of_another() -> None:
    old = _file(_message("one"), _message("two"))
    faults = _faults(old, _message("one", was="two"))
    assert len(faults) == 1
    assert '"one" exists already, so it was never "two"' in faults[0]


def test_kind_and_workspace_cannot_change() -> None:
    faults = _faults(_file(), kind="one_off", workspace="v")
    assert [text.split(": ")[1] for text in faults] == ["workspace", "kind"]
