"""Gzip and other encodings as streams of UTF-8 bytes that give all they can before a damage.

The standard library's reader loses what it has unpacked in the call in which it meets the damage: up to a megabyte of
good rows. Here each call is repeated byte by byte from a copy of its state, so everything before the damage comes out.
"""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from engine.errors import WrongCall
from engine.predicate.workspace import closest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK: Final = 1 << 17
"""Packed bytes that are read at a time."""

_UNPACKED: Final = 1 << 18
"""Bytes that one call unpacks at most, whatever the ratio: a bomb of zeros fills no memory."""

_GZIP: Final = 31
"""zlib's window for a gzip stream: it reads the header and checks length and checksum at the end."""

_BAD_TEXT: Final = "tidegate.import"
_COMMON: Final = ("utf-8", "utf-16", "cp1252", "latin-1", "iso-8859-15", "mac-roman", "cp1250", "shift_jis", "gb18030")


class Chunks(io.RawIOBase):
    """Pieces of bytes as a raw file, to be buffered by `io.BufferedReader`."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Empty pieces are left out."""
        self._pieces = iter(pieces)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of `buffer`; 0 at the end. Raises what the pieces raise."""
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        room = memoryview(buffer)
        size = min(len(room), len(self._held))
        room[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def blocks_of(file: io.BufferedIOBase) -> Iterator[bytes]:
    """What is left of a binary file, a block at a time."""
    while block := file.read1(BLOCK):
        yield block


def unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a gzip file (also of several members, one behind the other).

    Raises `EOFError` where the file ends too early and `zlib.error` where it is damaged, after all bytes before that.
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
    """The bytes of one member; what follows it is left in `machine.unused_data` and `blocks`."""
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
    """What `block` gives before its damage."""
    out = bytearray()
    try:
        for place in range(len(block)):
            out += machine.decompress(block[place : place + 1])
    except zlib.error:
        pass
    return bytes(out)


def recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Bytes of `encoding` as UTF-8; what is no text of it becomes the byte 0xff, which is not UTF-8: its row is bad."""
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
"""Python's encodings of names of hosts and of its own source: no file is written in them."""


def encoding_named(name: str) -> str | None:
    """The codec of a name, None for UTF-8 (which needs none). Raises `WrongCall` where there is no such encoding."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    # `_is_text_encoding` is false for base64 and its like
    if found is None or found.name in _OF_LITERALS or not found._is_text_encoding:  # noqa: SLF001 - the one way to tell
        raise WrongCall(
            f"--encoding {name}: there is no such encoding",
            remedy=closest(name, _COMMON) or f"for instance {', '.join(_COMMON[:4])}",
        )
    return None if found.name in ("utf-8", "utf-8-sig") else found.name
