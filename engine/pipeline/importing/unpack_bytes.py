"""Read gzip and other encodings as streams of UTF-8 bytes, up to the first damaged byte.

The standard library's reader loses what it has unpacked in the call that meets the damage: up to a megabyte of good
rows. This reader repeats such a call byte by byte from a copy of its state, so everything before the damage comes out.
"""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from engine.catalogue.workspace_file import closest
from engine.errors import WrongCall

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK: Final = 1 << 17
"""Packed bytes read at a time."""

_UNPACKED: Final = 1 << 18
"""The most bytes that one call unpacks, at any ratio, so that a zip bomb of zeros cannot fill the memory."""

_GZIP: Final = 31
"""zlib's window for a gzip stream: zlib reads the header, and checks length and checksum at the end."""

_BAD_TEXT: Final = "tidegate.import"
_COMMON: Final = ("utf-8", "utf-16", "cp1252", "latin-1", "iso-8859-15", "mac-roman", "cp1250", "shift_jis", "gb18030")


class Chunks(io.RawIOBase):
    """Pieces of bytes as a raw file, for `io.BufferedReader` to buffer."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Empty pieces are left out."""
        self._pieces = iter(pieces)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a part of `buffer`; return 0 at the end. Raises what the pieces raise."""
        while not self._held:
            chunk = next(self._pieces, None)
            if chunk is None:
                return 0
            self._held = memoryview(chunk)
        room = memoryview(buffer)
        size = min(len(room), len(self._held))
        room[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def blocks_of(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield the rest of a binary file, a block at a time."""
    while block := file.read1(BLOCK):
        yield block


def unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a gzip file, also of several consecutive members.

    Raises `EOFError` if the file ends too early and `zlib.error` if it is damaged, after all bytes before that place.
    """
    rest = next(blocks, b"")
    while True:
        machine = zlib.decompressobj(_GZIP)
        yield from _member(machine, rest, blocks)
        rest = machine.unused_data.lstrip(b"\0")  # some writers pad with zeros
        while not rest:
            block = next(blocks, b"")
            if not block:
                return
            rest = block.lstrip(b"\0")


def _member(machine: zlib._Decompress, rest: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of one member; what follows it stays in `machine.unused_data` and `blocks`."""
    while not machine.eof:
        block = rest or next(blocks, b"")
        before = machine.copy()
        try:
            out = machine.decompress(block, _UNPACKED)
        except zlib.error:
            yield _salvaged(before, block)
            raise
        if not out and not block:
            raise EOFError("it ends in the middle")
        rest = machine.unconsumed_tail
        if out:
            yield out


def _salvaged(machine: zlib._Decompress, block: bytes) -> bytes:
    """Return the bytes that `block` yields before its damage."""
    out = bytearray()
    try:
        for place in range(len(block)):
            out += machine.decompress(block[place : place + 1])
    except zlib.error:
        pass
    return bytes(out)


def recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Convert bytes of `encoding` to UTF-8; invalid bytes become 0xff, which is not UTF-8, so their row is bad."""
    decoder = codecs.getincrementaldecoder(encoding)(_BAD_TEXT)
    for block in blocks:
        yield decoder.decode(block).encode(errors="surrogateescape")
    yield decoder.decode(b"", final=True).encode(errors="surrogateescape")


def _mark_bad(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_BAD_TEXT, _mark_bad)


_OF_LITERALS: Final = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python's encodings for host names and for its own source; no data file uses them."""


def encoding_named(name: str) -> str | None:
    """Return the codec with this name, None for UTF-8 (which needs none). Raises `WrongCall` for an unknown name."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        codec = None
    # `_is_text_encoding` is false for base64 and similar codecs
    if codec is None or codec.name in _OF_LITERALS or not codec._is_text_encoding:  # noqa: SLF001 - the only way
        raise WrongCall(
            f"--encoding {name}: there is no such encoding",
            remedy=closest(name, _COMMON) or f"for instance {', '.join(_COMMON[:4])}",
        )
    return None if codec.name in ("utf-8", "utf-8-sig") else codec.name
