"""The sender of a mail, the addresses for answers and bounces, and the campaign's own headers, from a campaign file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parseaddr
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict

from engine.domain.addresses import envelope_address
from engine.yamlfile.scalars import Misfit, Model, Text, shown

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,75}")
_LONGEST_VALUE: Final = 2_000
"""Maximum characters of a header's text: a longer one is a mistake, and servers refuse it."""

RESERVED: Final = frozenset({
    "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "return-path",
    "received", "in-reply-to", "references", "dkim-signature", "authentication-results",
})  # fmt: skip
"""Headers that the engine or the servers write."""
RESERVED_BEGINNINGS: Final = ("content-", "tidegate-", "resent-", "arc-", "received-", "x-tidegate-")


def _check_address(value: str) -> str:
    if envelope_address(value) is None:
        raise Misfit(f"expected an e-mail address, got {shown(value)}", "write name@domain")
    return value


def _check_words(value: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise Misfit("has a line break or control character", "write it on one line")
    return value


Address = Annotated[Text, AfterValidator(_check_address)]
Words = Annotated[Text, AfterValidator(_check_words)]


def _or_text(schema: JsonDict) -> None:
    """Let the schema also accept `Name <address>` in place of the mapping."""
    written = {**schema}
    schema.clear()
    schema["anyOf"] = [{"type": "string", "examples": ["Grocer <news@grocer.example>"]}, written]


def _mailbox(given: object) -> object:
    """Convert `Name <address>` or an address to a mapping."""
    if not isinstance(given, str):
        return given
    name, address = parseaddr(given)
    plain = address if not name else f"{name} <{address}>"
    if not address or ("<" not in given and plain != given.strip()):
        raise Misfit(f"expected an address, or a name with one, got {shown(given)}", "write Name <name@domain>")
    return {"name": name, "address": address} if name else {"address": address}


class SenderOf(Model):
    """Who mails are from; what is left out is the campaign's, else the workspace's."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    name: Words | None = None
    address: Address | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: object) -> object:
        return _mailbox(given)

    @model_validator(mode="after")
    def _says_something(self) -> SenderOf:
        if self.name is None and self.address is None:
            raise Misfit("has neither name nor address", "write {name: NAME}, {address: ADDRESS} or both")
        return self


class ReplyTo(Model):
    """Where answers go."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    name: Words = ""
    address: Address

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: object) -> object:
        return _mailbox(given)


def _check_headers(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    seen: set[str] = set()
    for name, value in given.items():
        low = str(name).lower()
        if not _NAME.fullmatch(str(name)):
            raise Misfit(f"{shown(name)} is not a header name", "use letters, digits and -", at=(name,))
        if low in RESERVED or low.startswith(RESERVED_BEGINNINGS):
            keys = {"from": "sender:", "reply-to": "reply_to:", "return-path": "envelope_from:", "subject": "subject:"}
            hint = f"use {keys[low]}" if low in keys else "remove it"
            raise Misfit(f"{name} is written by the engine or by mail servers", hint, at=(name,))
        if low in seen:
            raise Misfit(f"{name} is given twice (the names differ only in case)", "keep one", at=(name,))
        seen.add(low)
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise Misfit("a header must be one line", "remove the line break", at=(name,))
        if isinstance(value, str) and len(value) > _LONGEST_VALUE:
            raise Misfit(f"is longer than {_LONGEST_VALUE} characters", at=(name,))
    return given


Headers = Annotated[
    dict[str, Annotated[Text, Field(min_length=1)]],
    BeforeValidator(_check_headers),
    WithJsonSchema({
        "type": "object",
        "description": "Headers of one's own, by name; each value is one line of Liquid.",
        "additionalProperties": {"type": "string"},
        "examples": [{"List-Unsubscribe": "<https://shop.example/out/{{ user.user_id | url_encode }}>"}],
    }),
]  # fmt: skip


class Letterhead(Model):
    """The sender settings of a campaign and of each of its messages; a message's setting takes precedence."""

    sender: SenderOf | None = None
    reply_to: ReplyTo | None = None
    envelope_from: Address | None = None
    headers: Headers = Field(default_factory=dict)
