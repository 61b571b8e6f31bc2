"""Redacts log texts: addresses, known secrets, and values that other libraries' exceptions quote.

The contract keeps bodies and attributes out by carrying ids only. Redaction is the second defence, for every text of a
line:

- an e-mail address anywhere becomes `[address]`, the credentials of a URL `[credentials]`;
- a secret that was registered (`Redactor.secret`), plain or encoded, becomes `[secret]`;
- a user id that looks like an address becomes a pseudonym, the same in every process that has the same key;
- the text of an exception that is not ours loses its quoted values: drivers quote whole documents.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import traceback
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson

from engine.domain.keys import unescape
from engine.errors import EngineError

_ADDRESS: Final = re.compile(r"""[^\s@"'<>()\[\]{},;:=|`]+(?:@|%40|&#64;)[^\s@"'<>()\[\]{},;:=|`\\]+""", re.IGNORECASE)
_QUOTED_LOCAL: Final = re.compile(r'"[^"\n]{1,128}"@[^\s@"<>,;]+')
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@]+@")
_VALUES: Final = re.compile(r"""(?P<open>['"`{\[(]).*""", re.DOTALL)
_SHORTEST_SECRET: Final = 6
"""Characters: redacting a shorter secret would remove ordinary words from the logs (and it is no secret)."""
_LONGEST_TEXT: Final = 4_000
"""Characters of an exception's text that are kept; the rest may be whole documents."""
_KEY_FILE: Final = "pseudonyms.key"


def looks_like_address(user_id: str) -> bool:
    """Return whether a user id must be pseudonymised: it has an `@` (plain or escaped) between other characters."""
    return "@" in user_id.strip("@") or "%40" in user_id


class Redactor:
    """Removes confidential values from texts. `key` (secret) makes the pseudonyms; 16 bytes or more."""

    def __init__(self, key: bytes, known_secrets: tuple[str, ...] = ()) -> None:
        self._key = key
        self._known: frozenset[str] = frozenset()
        self._secrets: re.Pattern[str] | None = None
        for value in known_secrets:
            self.secret(value)

    def __repr__(self) -> str:
        return "Redactor(…)"

    def secret(self, value: str) -> None:
        """Register a secret: from now on it is redacted, plain and in the encodings of URLs, JSON and Base64."""
        if len(value) < _SHORTEST_SECRET:
            return
        self._known |= set(_forms(value))
        longest_first = sorted(self._known, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return `text` without addresses, credentials and known secrets."""
        if self._secrets is not None and len(text) >= _SHORTEST_SECRET:
            text = self._secrets.sub("[secret]", text)
        if "@" in text or "%40" in text or "&#64;" in text:
            text = _CREDENTIALS.sub("[credentials]@", text)
            text = _QUOTED_LOCAL.sub("[address]", text)
            text = _ADDRESS.sub(_mask, text)
        return text

    def leaves(self, text: str) -> bool:
        """Return whether redaction would leave `text` unchanged, as a text, a user id and a key."""
        if "@" in text or "%40" in text or "&#64;" in text:
            return False
        return self._secrets is None or self._secrets.search(text) is None

    def user(self, user_id: str) -> str:
        """Return the logged form of a user id: the id itself, or `u:` and 16 digits if it looks like an address."""
        if not looks_like_address(user_id):
            return user_id
        return "u:" + blake2b(user_id.encode(), key=self._key[:64], digest_size=8).hexdigest()

    def key(self, key: str) -> str:
        """Return the logged form of a delivery key or another key of a user.

        An address in it becomes a pseudonym and the hash before it becomes `~`: the layout hash has no secret in it, so
        it would let anyone test a guessed address.
        """
        if "@" not in key and "%40" not in key:
            return key
        parts = key.split("/")
        for place, part in enumerate(parts):
            if looks_like_address(part):
                parts[place] = self.user(unescape(part))
                if place:
                    parts[place - 1] = "~"
        return "/".join(parts)

    def values(self, value: object) -> object:
        """Return `value` with every text in it redacted.

        Lists and mappings are copied, other types become their text.
        """
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {str(name): self.values(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.values(item) for item in value]
        return self.text(str(value))

    def error(self, error: BaseException) -> tuple[str, str, str]:
        """Return type, text and stack of an exception with its causes.

        Texts that are not ours lose their quoted values.
        """
        kind = type(error)
        return f"{kind.__module__}.{kind.__qualname__}", self._message_of(error), self.text("".join(self._stack(error)))

    def _message_of(self, error: BaseException) -> str:
        if isinstance(error, OSError) and error.strerror and not isinstance(error, EngineError):
            return f"[errno {error.errno}] {self.text(str(error.strerror))}"
        text = self.text(str(error)[:_LONGEST_TEXT])
        return text if isinstance(error, EngineError) else _VALUES.sub(lambda match: f"{match['open']}…", text)

    def _stack(self, error: BaseException, depth: int = 0) -> Iterator[str]:
        """Yield frames without their variables, causes first; follow a chain for eight links."""
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None and depth < 8:
            yield from self._stack(cause, depth + 1)
            yield "\n"
        yield from traceback.format_list(traceback.extract_tb(error.__traceback__, limit=-40))
        yield f"{type(error).__name__}: {self._message_of(error)}\n"


def pseudonym_key(folder: Path) -> bytes:
    """Return the key of this installation's pseudonyms from a file of `folder`; the first process creates it.

    Processes on other machines need the same key: give it in the settings there.
    """
    path = folder / _KEY_FILE
    with suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{_KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(scratch, path)  # atomic, and only the first link counts
    finally:
        scratch.unlink()
    return bytes.fromhex(path.read_text(encoding="ascii").strip())


def _mask(match: re.Match[str]) -> str:
    # Keep the text that `_CREDENTIALS` has inserted.
    return match[0] if match[0].startswith("[credentials]@") else "[address]"


def _forms(value: str) -> Iterator[str]:
    yield value
    yield quote(value, safe="")
    yield orjson.dumps(value).decode()[1:-1]
    raw = value.encode()
    # Base64 of a text inside another: three alignments, without the digits that it shares with its neighbours.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        middle = encoded[(0, 2, 3)[shift] : -1]
        if len(middle) >= 2 * _SHORTEST_SECRET:
            yield middle
