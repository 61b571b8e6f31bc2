"""What a campaign file may say. Predicates stay plain trees here; `engine.campaign.load` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.config import JsonDict

from engine.campaign.sender import Letterhead
from engine.clock import format_duration
from engine.policy.models import CampaignKind
from engine.yamlfile.scalars import Duration, Flag, Misfit, Model, Moment, Percent, Slug, Text

NO_MESSAGE: Final = "none"
"""`was: none` says that a message is new; so no message may have this name."""

_NODES: Final[JsonDict] = {"type": "array", "items": {"type": "object"}}
_LEAVES: Final[JsonDict] = {
    "all": _NODES,
    "any": _NODES,
    "none": _NODES,
    "list": {"type": "string"},
    "event": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "within": {"type": "string"},
            "where": {"type": "object"},
            "count": {"type": "object"},
            "sum": {"type": "object"},
            "after": {"type": "object"},
        },
    },
}
_RULE: Final[JsonDict] = {
    "type": "object",
    "description": "A predicate: all, any, none over leaves; a leaf is FIELD: value, list: NAME or event: {...}.",
    "properties": _LEAVES,
}


def _mapping(given: object) -> object:
    if isinstance(given, list):
        raise Misfit("expected a predicate, got a list", "write all: and the list under it")
    return given


Rule = Annotated[dict[str, object], BeforeValidator(_mapping), WithJsonSchema(_RULE)]
"""A predicate as it stands in the file (`docs/predicates.md`)."""


def _or_once(schema: JsonDict) -> None:
    """The file may say `once` in place of the mapping."""
    written: JsonDict = {**schema, "required": ["again_after"]}
    schema.clear()
    schema["anyOf"] = [{"const": "once"}, written]


def _leaves_beside(schema: JsonDict) -> None:
    """The file has the leaves of the rule beside `within` and `exits`."""
    properties = schema.pop("properties")
    own = {key: value for key, value in properties.items() if key != "rule"} if isinstance(properties, dict) else {}
    schema["properties"] = {**_LEAVES, **own}
    schema.pop("required", None)
    schema.pop("additionalProperties", None)


class Entry(Model):
    """How often a user may enter: `once`, or again when `again_after` has passed since the last stay ended."""

    model_config = ConfigDict(json_schema_extra=_or_once)

    again_after: Duration | None = None

    @model_validator(mode="before")
    @classmethod
    def _once_or_again(cls, given: object) -> object:
        if given == "once":
            return {}
        if isinstance(given, Mapping) and given.get("again_after", ...) is not None:
            return given
        raise Misfit("expected once, or again_after with a duration", "write once, or {again_after: 90d}")

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> object:
        return "once" if self.again_after is None else handler(self)


class ExitRule(Model):
    """When a stay ends early: the user no longer matches the audience, or `when` holds.

    `unmatched: null` is the kind's default: true for `continuous`, false for `one_off`.
    """

    unmatched: Flag | None = None
    when: Rule | None = None


class GoalRule(Model):
    """What the campaign is for: an event after the entry, or a predicate on fields; `within` counts from the entry."""

    model_config = ConfigDict(json_schema_extra=_leaves_beside)

    within: Duration | None = None
    exits: Flag = True
    rule: Rule

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: object) -> object:
        """The file writes the leaves beside `within` and `exits`; here they are one rule."""
        if not isinstance(given, dict):
            return given
        own = {key: given[key] for key in ("within", "exits") if key in given}
        rule = {key: value for key, value in given.items() if key not in own}
        if not rule:
            raise Misfit("names no event and no field, only how it counts", "write event: {name: NAME}")
        return {**own, "rule": rule}

    @model_serializer(mode="plain")
    def _written(self) -> dict[str, object]:
        own: dict[str, object] = {} if self.exits else {"exits": False}
        if self.within is not None:
            own["within"] = format_duration(self.within)
        return {**self.rule, **own}


class Message(Letterhead):
    """One message of the series. `body` and `text` are the text itself or the path of a template.

    `format` is what the body is written in, where its file's extension does not say it; `preheader` the line that mail
    programs show behind the subject.
    `wait` counts from the message before it (from the entry for the first); `not_after` is the last moment at
    which it is sent, later it is skipped as too late; `was` tells what became of a message that an edit renames
    (`none`: it is new).
    """

    name: Slug
    channel: Literal["email"]
    subject: Text = Field(min_length=1)
    body: Text = Field(min_length=1)
    text: Text | None = Field(default=None, min_length=1)
    format: Literal["html", "text", "markdown", "mjml"] | None = None
    preheader: Text | None = Field(default=None, min_length=1)
    wait: Duration = timedelta(0)
    when: Rule | None = None
    not_after: Moment | None = None
    was: Slug | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == NO_MESSAGE:
            raise Misfit(f'no message may be called "{NO_MESSAGE}"', "was: none marks a new message", at=("name",))
        if self.was == self.name:
            raise Misfit("names the message itself", "remove was:", at=("was",))
        for key, text in (("subject", self.subject), ("preheader", self.preheader or "")):
            if "\n" in text or "\r" in text:
                raise Misfit(f"a {key} must be one line", "remove the line break", at=(key,))
        if self.format == "text" and self.text is not None:
            raise Misfit("the body is plain text already", "remove text:, or write format: html", at=("text",))
        if self.format == "text" and self.preheader is not None:
            raise Misfit(
                "a body of plain text has no preheader",
                "remove it: mail clients show the body's first line",
                at=("preheader",),
            )
        return self


def _sender_last(spec: dict[str, object]) -> dict[str, object]:
    """`spec` with what it is about first."""
    last = {key: spec[key] for key in Letterhead.model_fields if key in spec}
    return {key: value for key, value in spec.items() if key not in last} | last


class CampaignFile(Letterhead):
    """A campaign as its author wrote it."""

    campaign: Slug
    workspace: Slug
    kind: CampaignKind
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    profile: Slug | None = None
    audience: Rule
    entry: Entry = Entry()
    exit: ExitRule = ExitRule()
    goal: GoalRule | None = None
    holdout: Percent = 0.0
    at_most_once: Flag | None = None
    messages: tuple[Message, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind is CampaignKind.ONE_OFF:
            if self.entry.again_after is not None:
                raise Misfit("a one_off campaign takes its audience once", "write entry: once", at=("entry",))
            if self.ends_at is not None:
                problem = "a one_off campaign takes its audience at its start and ends by itself"
                raise Misfit(problem, "remove ends_at:", at=("ends_at",))
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise Misfit("is not later than starts_at", at=("ends_at",))
        if self.holdout >= 1:
            raise Misfit("with 100% no user would get a message", "write less than 100%", at=("holdout",))
        return self

    @model_validator(mode="after")
    def _messages_fit(self) -> Self:
        names: list[str] = []
        for i, message in enumerate(self.messages):
            if message.name in names:
                problem = f'"{message.name}" is also the name of messages[{names.index(message.name)}]'
                raise Misfit(problem, "give it another name", at=("messages", i, "name"))
            names.append(message.name)
            if message.not_after is not None and self.starts_at is not None and message.not_after <= self.starts_at:
                raise Misfit("is not later than starts_at: never sent", at=("messages", i, "not_after"))
        renamed = [(i, message.was) for i, message in enumerate(self.messages) if message.was not in (None, NO_MESSAGE)]
        for position, (i, was) in enumerate(renamed):
            if was in [other for _, other in renamed[:position]]:
                raise Misfit(
                    f"two messages have was: {was}", "only one message can take its name", at=("messages", i, "was")
                )
            if was in names:
                problem = f'the message "{was}" still exists, so this message cannot be its new name'
                raise Misfit(problem, "write was: none for a new message", at=("messages", i, "was"))
        return self

    @property
    def unmatched_exits(self) -> bool:
        """Whether a user who no longer matches the audience leaves."""
        return self.kind is CampaignKind.CONTINUOUS if self.exit.unmatched is None else self.exit.unmatched

    def spec(self) -> dict[str, object]:
        """The file as plain values (texts of templates as they are in here), without what is left at its default."""
        spec = _sender_last(self.model_dump(mode="json", exclude_defaults=True))
        messages = spec["messages"]
        assert isinstance(messages, list)  # noqa: S101 - a file has messages
        return {**spec, "messages": [_sender_last(message) for message in messages]}
