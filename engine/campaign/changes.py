"""Describe the effect of a campaign edit on enrolled users, and refuse edits that are not allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from engine.campaign.model import NO_MESSAGE, CampaignFile, Message
from engine.campaign.sender import Letterhead, ReplyTo, SenderOf
from engine.clock import Instant, format_duration, format_instant
from engine.domain.template import KeptTexts
from engine.errors import Fault
from engine.yamlfile.nodes import Node
from engine.yamlfile.scalars import nearest


class Concern(StrEnum):
    """The part of a campaign that a change concerns."""

    AUDIENCE = "audience"
    ENTRY = "entry"
    EXIT = "exit"
    GOAL = "goal"
    TIMES = "times"
    PROFILE = "profile"
    HOLDOUT = "holdout"
    MESSAGES = "messages"
    DELIVERY = "delivery"
    SENDER = "sender"
    WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two revisions: its concern, and a sentence on the effect for enrolled users."""

    concern: Concern
    text: str


Aliases: TypeAlias = Mapping[str, tuple[str, ...]]
"""For each message, the names under which it was sent before.

If a message settled under one of these names, it is settled.
"""


def edit_faults(old: CampaignFile, new: CampaignFile, node: Node, aliases: Aliases | None = None) -> list[Fault]:
    """Return the reasons why a launched campaign may not be edited like this; `node` is the new document.

    Another workspace or kind would be another campaign. If an edit removes some messages and adds others, each new one
    must say `was: NAME` or `was: none`: an undeclared rename would be sent again to everyone. `aliases` are those of
    the old revision, so a `was` that took effect in an earlier edit may stay in the file.
    """
    faults: list[Fault] = []
    for key, before, after in (("workspace", old.workspace, new.workspace), ("kind", old.kind, new.kind)):
        if before != after:
            problem = f'cannot be changed once it is launched (it is "{before}")'
            hint = "give a new campaign another name" if key == "kind" else f'write "{before}"'
            faults.append(Fault(node.find(key).mark, key, problem, hint))
    before_names = {message.name for message in old.messages}
    gone = [message.name for message in old.messages if message.name not in {kept.name for kept in new.messages}]
    for i, message in enumerate(new.messages):
        obeyed = message.was in (aliases or {}).get(message.name, ())
        if message.name in before_names:
            same = any(earlier.name == message.name and earlier.was == message.was for earlier in old.messages)
            if message.was not in (None, NO_MESSAGE) and not same and not obeyed:
                problem = f'"{message.name}" exists already, so it was never "{message.was}"'
                faults.append(Fault(node.find("messages", i, "was").mark, f"messages[{i}].was", problem, "remove was:"))
        elif gone and message.was is None:
            names = ", ".join(gone)
            problem = f'"{message.name}" is new and {names} is gone: a rename without was: is sent again to everyone'
            hint = f"write was: {gone[0]} if it is the same message, was: none if it is not"
            faults.append(Fault(node.find("messages", i, "name").mark, f"messages[{i}]", problem, hint))
        elif message.was not in (None, NO_MESSAGE) and message.was not in gone:
            problem = f'the applied campaign has no message "{message.was}" to rename'
            hint = nearest(message.was, gone) if gone else "remove was:"
            faults.append(Fault(node.find("messages", i, "was").mark, f"messages[{i}].was", problem, hint))
    return faults


def renames(old: CampaignFile, new: CampaignFile) -> dict[str, str]:
    """Return the new name of each message that this edit renames, mapped to its old name."""
    gone = {message.name for message in old.messages} - {message.name for message in new.messages}
    return {message.name: message.was for message in new.messages if message.was is not None and message.was in gone}


def carry_aliases(aliases: Aliases, old: CampaignFile, new: CampaignFile) -> dict[str, tuple[str, ...]]:
    """Return the aliases of the new revision: a renamed message keeps its old aliases and its old name."""
    carried: dict[str, tuple[str, ...]] = {}
    renamed = renames(old, new)
    for message in new.messages:
        was = renamed.get(message.name)
        names = (*aliases.get(was, ()), was) if was is not None else tuple(aliases.get(message.name, ()))
        if names:
            carried[message.name] = names
    return carried


def changes(old: CampaignFile, new: CampaignFile) -> list[Change]:
    """Return the differences, in file order, each with its effect on enrolled users; empty for equal files."""
    return list(_changes(old, new))


def _changes(old: CampaignFile, new: CampaignFile) -> Iterator[Change]:
    if old.audience != new.audience:
        tail = "enrolled users who do not match it leave" if new.unmatched_exits else "enrolled users remain"
        yield Change(Concern.AUDIENCE, f"the audience changes: {tail}")
    if old.starts_at != new.starts_at:
        yield Change(Concern.TIMES, f"starts {_at(new.starts_at)} (was {_at(old.starts_at)}): enrolled users remain")
    if old.ends_at != new.ends_at:
        yield Change(
            Concern.TIMES,
            f"intake ends {_at(new.ends_at)} (was {_at(old.ends_at)}): enrolled users continue to their end",
        )
    if old.profile != new.profile:
        words = f"{new.profile or 'by matching'} (was {old.profile or 'by matching'})"
        yield Change(Concern.PROFILE, f"the profile is {words}: lane and inactivity window may change")
    if old.entry != new.entry:
        again = new.entry.again_after
        text = (
            "no user enters a second time"
            if again is None
            else f"users who left can enter again after {format_duration(again)}"
        )
        yield Change(Concern.ENTRY, f"{text}; enrolled users are not affected")
    if old.unmatched_exits != new.unmatched_exits:
        text = "now leave" if new.unmatched_exits else "now remain"
        yield Change(Concern.EXIT, f"enrolled users who no longer match {text}")
    if old.exit.when != new.exit.when:
        text = "is removed" if new.exit.when is None else "changes: enrolled users who meet it leave"
        yield Change(Concern.EXIT, f"the exit rule {text}")
    if old.goal != new.goal:
        text = (
            "is removed: no user leaves because of it any more"
            if new.goal is None
            else "changes: conversions counted so far remain"
        )
        yield Change(Concern.GOAL, f"the goal {text}")
    if old.holdout != new.holdout:
        words = f"{new.holdout:.4%} (was {old.holdout:.4%})".replace(".0000%", "%")
        yield Change(Concern.HOLDOUT, f"the holdout is {words} for new enrolments; enrolled users keep their arm")
    if old.at_most_once != new.at_most_once:
        yield Change(Concern.DELIVERY, "the treatment of a message whose sender died changes, from the next send on")
    for text in _sender(old, new):
        yield Change(Concern.SENDER, f"{text}: in everything sent from now on")
    yield from _messages(old, new)


def _sender(old: Letterhead, new: Letterhead) -> Iterator[str]:
    """Yield the differences of the sender settings, as phrases."""
    if old.sender != new.sender:
        yield f"the sender is {_mailbox(new.sender)} (was {_mailbox(old.sender)})"
    if old.reply_to != new.reply_to:
        yield f"replies go to {_mailbox(new.reply_to)} (was {_mailbox(old.reply_to)})"
    if old.envelope_from != new.envelope_from:
        yield f"bounces go to {new.envelope_from or 'the default'} (was {old.envelope_from or 'the default'})"
    names = [*old.headers, *(name for name in new.headers if name not in old.headers)]
    differing = [name for name in names if old.headers.get(name) != new.headers.get(name)]
    if differing:
        yield f"{'the header' if len(differing) == 1 else 'the headers'} {', '.join(differing)} changed"


def _mailbox(sender: SenderOf | ReplyTo | None) -> str:
    """Format a name and an address, as far as they are given."""
    if sender is None:
        return "the default"
    name, address = sender.name or "", sender.address or ""
    return f"{name} <{address}>" if name and address else name or address


def snippet_changes(old: KeptTexts, new: KeptTexts) -> Iterator[Change]:
    """Yield the layouts and snippets that differ between two revisions."""
    before = {(snippet.form, snippet.name): snippet.text for snippet in old.snippets}
    for snippet in new.snippets:
        if before.get((snippet.form, snippet.name), snippet.text) != snippet.text:
            text = f'the snippet or layout "{snippet.name}" changed: in everything sent from now on'
            yield Change(Concern.MESSAGES, text)


def _messages(old: CampaignFile, new: CampaignFile) -> Iterator[Change]:
    before = {message.name: message for message in old.messages}
    after = {message.name: message for message in new.messages}
    renamed = renames(old, new)
    for name in before:
        if name not in after and name not in renamed.values():
            yield Change(
                Concern.MESSAGES, f'"{name}" is removed: no user gets it any more, and queued ones are skipped'
            )
    for name, message in after.items():
        earlier = before.get(renamed.get(name, name))
        if earlier is None:
            text = f'"{name}" is new: it reaches active users, not those who have left'
            yield Change(Concern.MESSAGES, text)
            continue
        if name in renamed:
            yield Change(Concern.MESSAGES, f'"{name}" was "{renamed[name]}": users who got that do not get it again')
        yield from _message(name, earlier, message)
    kept = [renamed.get(name, name) for name in after if renamed.get(name, name) in before]
    if kept != [name for name in before if name in kept]:
        yield Change(
            Concern.MESSAGES, "the order changes: enrolled users continue with the first message that is not settled"
        )


def _message(name: str, old: Message, new: Message) -> Iterator[Change]:
    if old.wait != new.wait:
        words = f"{format_duration(new.wait)} (was {format_duration(old.wait)})"
        yield Change(Concern.MESSAGES, f'"{name}" waits {words}: users still waiting get it at the new time')
    if old.when != new.when:
        yield Change(
            Concern.MESSAGES, f'"{name}" has another rule: users who have not had it are judged by the new one'
        )
    if old.not_after != new.not_after:
        yield Change(Concern.MESSAGES, f'"{name}" is too late {_at(new.not_after)} (was {_at(old.not_after)})')
    for phrase in _sender(old, new):
        yield Change(Concern.SENDER, f'"{name}": {phrase}: in everything sent from now on')
    keys = ("subject", "preheader", "body", "format", "text")
    texts = [key for key in keys if getattr(old, key) != getattr(new, key)]
    if texts:
        yield Change(Concern.MESSAGES, f'"{name}" has another {" and ".join(texts)}: in everything sent from now on')


def _at(at: Instant | None) -> str:
    return "at no set time" if at is None else format_instant(at)
