"""Render every text of a campaign for sample users when it is applied, and refuse texts that fail for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.campaign.load import LoadedCampaign
from engine.campaign.model import Message
from engine.channels.mail.mime import BadMessage
from engine.channels.mail.prebuilt import Written
from engine.channels.mail.preheader import PREHEADER
from engine.channels.mail.renderer import MailRenderer
from engine.channels.templates.comparison import words_compared
from engine.channels.templates.context import surroundings
from engine.channels.templates.errors import TemplateFailed
from engine.channels.templates.liquid import bound
from engine.channels.templates.sample_users import sample_users
from engine.clock import Instant
from engine.errors import Fault, Mark
from engine.pipeline.delivery.message_content import failure_place, letter_of, sender_of


@dataclass(slots=True)
class Rendered:
    """The result of rendering: mistakes for which an apply refuses the campaign, and failures for some users only."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_rendering(loaded: LoadedCampaign, as_of: Instant) -> Rendered:
    """Render each message for users with every field, none, extremes, and the words that templates compare with."""
    rendered = Rendered()
    for i, message in enumerate(loaded.file.messages):
        rendered.faults += _sender(loaded, i, message)
        _message(loaded, i, message, as_of, rendered)
    return rendered


def _message(loaded: LoadedCampaign, i: int, message: Message, as_of: Instant, rendered: Rendered) -> None:
    letter = letter_of(loaded, loaded.file.campaign, message)
    mailing = MailRenderer(letter, message.name, loaded.catalogue)
    around = surroundings(loaded.catalogue, loaded.file.campaign, message.name, as_of)
    samples = list(sample_users(loaded.catalogue, as_of, _words(loaded, message)))
    for part in [name for name, _, _ in letter.parts()]:
        failures = [
            (shown, failure)
            for shown in samples
            if (failure := _fails(mailing, part, {**around, "user": shown.values}))
        ]
        if not failures:
            continue
        sample, failure = failures[0]
        if len(failures) == len(samples):
            mark = _mark(loaded, message, mailing, failure)
            rendered.faults.append(Fault(mark, _where(i, part, message), f"fails for every user: {failure.problem}"))
            return
        place = failure_place(failure, mailing, loaded.texts, message.name)
        rendered.warnings.append(f"{place}: fails for {sample.kind}: {failure.problem}")
    rendered.faults += _built(loaded, i, mailing, {**around, "user": samples[0].values}, rendered)


def _fails(mailing: MailRenderer, part: str, values: dict[str, object]) -> TemplateFailed | None:
    try:
        mailing.part(part, values)
    except TemplateFailed as error:
        return error
    return None


def _built(
    loaded: LoadedCampaign, i: int, mailing: MailRenderer, values: dict[str, object], rendered: Rendered
) -> Iterator[Fault]:
    """Yield a fault if no mail can be made of the texts, although each renders for a user with every field."""
    if rendered.faults:
        return
    try:
        mailing.write_whole(values, Written("check", "sample@example.org", 0, 0))
    except BadMessage as error:
        yield Fault(loaded.node.find("messages", i).mark, f"messages[{i}]", f"no mail can be made: {error}")
    except TemplateFailed:
        return  # already a warning: it fails for this user, not for all


def _words(loaded: LoadedCampaign, message: Message) -> set[str]:
    words: set[str] = set()
    texts = [message.subject, message.body, message.text or "", message.preheader or ""]
    for text in [*texts, *(snippet.text for snippet in loaded.texts.snippets)]:
        try:
            words |= words_compared(bound(text, False))
        except TemplateFailed:
            continue  # the rendering of that text reports it
    return words


def _where(i: int, part: str, message: Message) -> str:
    own = part.removeprefix("headers.") in message.headers or not part.startswith("headers.")
    return f"messages[{i}].{part}" if own else part


def _mark(loaded: LoadedCampaign, message: Message, mailing: MailRenderer, failure: TemplateFailed) -> Mark:
    """Return the place of a failure in the file that its author edits."""
    part = mailing.part_of(failure)
    kind, name = mailing.snippet_of(failure)
    key = ("", f"{kind}:{name}") if not part else (message.name, part)
    source = loaded.sources.get(key) or loaded.sources.get(("", part))
    if source is None:
        return loaded.node.mark
    kept = loaded.texts.origins.get(key)
    snippet = next((words.origin for words in loaded.texts.snippets if (words.form, words.name) == (kind, name)), None)
    origin = kept if part else snippet
    if origin is not None and origin.lines:
        line = origin.line(failure.source, failure.index)
        return source.mark(sum(len(text) + 1 for text in source.text.split("\n")[: line - 1]))
    hidden = failure.source.count(PREHEADER, 0, failure.index) * len(PREHEADER)
    return source.mark(failure.index - hidden)


def _sender(loaded: LoadedCampaign, i: int, message: Message) -> Iterator[Fault]:
    """Yield a fault for a message without a sender."""
    if sender_of(loaded, message) is None:
        mark = loaded.node.find("messages", i).mark
        yield Fault(mark, f"messages[{i}]", "it has no sender", "add sender: to the workspace's file")
