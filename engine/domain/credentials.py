"""Passwords and tokens of people and scripts, as they are kept: hashed, so that nobody who reads them can log in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

TOKEN: Final = "tidegate_"  # noqa: S105 - what every token begins with, so that scanners of leaked secrets know it
_COST: Final = 1 << 14
_BLOCK: Final = 8
"""scrypt's cost and block size: 16 MB and some 50 ms for one password."""
_MOST_MEMORY: Final = 64 * 1024 * 1024


def hash_password(password: str) -> str:
    """Return `scrypt$COST$BLOCK$SALT$HASH`, with a salt of its own."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_COST}${_BLOCK}${salt.hex()}${_scrypt(password, salt, _COST, _BLOCK).hex()}"


def password_fits(password: str, kept: str) -> bool:
    """Return whether `kept` is a hash of `password`; takes as long for an empty or broken `kept`."""
    parts = kept.split("$")
    if len(parts) != 5 or parts[0] != "scrypt":
        _scrypt(password, b"nobody's salt...", _COST, _BLOCK)
        return False
    found = _scrypt(password, bytes.fromhex(parts[3]), int(parts[1]), int(parts[2]))
    return hmac.compare_digest(found, bytes.fromhex(parts[4]))


def new_token() -> str:
    """Return a token that cannot be guessed (256 bits)."""
    return TOKEN + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the hash of a token; a token is random, so it needs no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _scrypt(password: str, salt: bytes, cost: int, block: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=cost, r=block, p=1, maxmem=_MOST_MEMORY, dklen=32
    )
