"""Find the keys of a JSON object by their meaning: rename them, leave them out, follow paths into nested objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from engine.pipeline.importing.columns import Layout

_MOST_OTHERS: Final = 200


class Key(NamedTuple):
    """One value of a row.

    `name` is the meaning of its key, `raw` the value, `key` the key as it is written, `path` its path if it is nested
    (empty directly in a container unless renamed), `mapped` whether an option renamed it. `inside` says that the key is
    in a container (`attributes`, `properties`).
    """

    name: str
    raw: Any  # a decoded JSON value, judged by the catalogue
    key: str
    path: str = ""
    mapped: bool = False
    inside: bool = False


class Keys:
    """Applies `--map` and `--ignore` to objects; a path (`profile.name.first`) leads into objects and arrays.

    `containers` are keys whose objects are read as if their keys were beside the others.
    """

    def __init__(self, layout: Layout, containers: Collection[str] = ()) -> None:
        self._mapping = layout.mapping
        self._ignored = layout.ignored
        self._containers = containers
        named = {*layout.mapping, *layout.ignored}
        self._roots = {name[:at] for name in named for at, sign in enumerate(name) if sign == "."}
        self.unseen = named
        """Keys that an option names and that no row has had so far."""
        self.others: dict[str, None] = {}
        """Keys that rows have, to suggest what an option may have meant."""

    def names(self, key: str) -> bool:
        """Return whether an option names `key`, or a path into it."""
        return key in self._mapping or key in self._ignored or key in self._roots

    def read(self, values: Mapping[str, Any]) -> list[Key]:
        """Return the values of one row, without those to leave out."""
        keys: list[Key] = []
        for key, raw in values.items():
            if self.unseen:
                self.unseen.discard(key)
            if key in self._ignored:
                continue
            if key in self._mapping:
                keys.append(Key(self._mapping[key], raw, key, mapped=True))
            elif isinstance(raw, dict) and key in self._containers:
                keys += self._within(raw, key, contained=True)
            elif isinstance(raw, (dict, list)) and key in self._roots:
                keys += self._within(raw, key, contained=False)
            else:
                keys.append(Key(key, raw, key))
                if self.unseen and len(self.others) < _MOST_OTHERS:
                    self.others[key] = None
        return keys

    def _within(self, part: Any, path: str, *, contained: bool) -> Iterator[Key]:
        """Yield the values of an object, or those elements of an array that an option names."""
        if isinstance(part, list):
            named = {*self._mapping, *self._ignored, *self._roots}
            pairs = [(str(at), item) for at, item in enumerate(part) if f"{path}.{at}" in named]
        else:
            pairs = list(part.items())
        for key, raw in pairs:
            here = f"{path}.{key}"
            for name in (here, key) if contained else (here,):
                self.unseen.discard(name)
            if here in self._ignored or (contained and key in self._ignored):
                continue
            renamed = self._mapping.get(here) or (self._mapping.get(key) if contained else None)
            if renamed is not None:
                yield Key(renamed, raw, key, here, mapped=True, inside=contained)
            elif here in self._roots and isinstance(raw, (dict, list)):
                yield from self._within(raw, here, contained=False)
            else:
                yield Key(key, raw, key, "" if contained else here, inside=contained)
                if self.unseen and len(self.others) < _MOST_OTHERS:
                    self.others[here] = None
