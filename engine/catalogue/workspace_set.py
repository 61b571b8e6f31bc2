"""All workspace files as one valid set: the source of fields for every process, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from engine.catalogue.catalogue import BUILTINS, Catalogue
from engine.catalogue.workspace_file import files_of, read_workspaces
from engine.errors import BrokenFile, Fault, InvalidSource, Mark
from engine.folder_watcher import INTERVAL, SETTLING, FolderWatcher


class WorkspaceSet(Mapping[str, Catalogue]):
    """The catalogues of all workspaces by name; it never changes.

    `broken` holds the mistakes of unreadable files: looking up one of these workspaces raises `BrokenFile`. A command
    may go on with the others; a process that works on every workspace calls `whole`.
    """

    def __init__(self, catalogues: Mapping[str, Catalogue], broken: Mapping[str, InvalidSource] | None = None) -> None:
        self._broken = MappingProxyType(dict(broken or {}))
        self._catalogues = MappingProxyType(
            {name: catalogue for name, catalogue in catalogues.items() if name not in self._broken}
        )

    def __getitem__(self, workspace: str) -> Catalogue:
        if workspace in self._broken:
            raise BrokenFile(self._broken[workspace].faults)
        return self._catalogues[workspace]

    def whole(self) -> WorkspaceSet:
        """Return this set, if every file can be read. Raises `InvalidSource` with the mistakes of all."""
        if self._broken:
            raise InvalidSource([fault for error in self._broken.values() for fault in error.faults])
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalogues)

    def __len__(self) -> int:
        return len(self._catalogues)

    def plain(self) -> dict[str, object]:
        """Return the content as plain values, by workspace; the built-in fields are left out."""
        return {name: plain_catalogue(catalogue) for name, catalogue in self._catalogues.items()}

    @cached_property
    def version(self) -> str:
        """Twelve hex digits of the SHA-256 of the content; comments do not count, the order of fields does."""
        return sha256(json.dumps(self.plain(), separators=(",", ":")).encode()).hexdigest()[:12]

    def over(self, before: Mapping[str, Catalogue]) -> WorkspaceSet:
        """Return this set, reusing the catalogues of `before` that did not change: objects built on them stay valid."""
        kept: dict[str, Catalogue] = {}
        for name, catalogue in self._catalogues.items():
            old = before.get(name)
            kept[name] = old if old is not None and plain_catalogue(old) == plain_catalogue(catalogue) else catalogue
        return WorkspaceSet(kept)


class LiveWorkspaces(Mapping[str, Catalogue]):
    """The workspaces currently in force; `current` returns them.

    Two lookups may give two answers: take a `snapshot` first for data that must fit together.
    """

    def __init__(self, current: Callable[[], WorkspaceSet]) -> None:
        self._current = current

    def __getitem__(self, workspace: str) -> Catalogue:
        return self._current()[workspace]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def snapshot(self) -> WorkspaceSet:
        """Return the set in force now, which never changes."""
        return self._current()

    @property
    def version(self) -> str:
        """The version of the set in force now."""
        return self._current().version


class WorkspaceWatcher(FolderWatcher[WorkspaceSet]):
    """Holds the current `WorkspaceSet` of a folder; see `FolderWatcher`.

    While a set is in force, the watcher refuses a folder without any workspace: it is more likely unmounted than
    intended.
    """

    def __init__(
        self,
        folder: Path,
        initial: WorkspaceSet,
        *,
        on_change: Callable[[WorkspaceSet, WorkspaceSet], None],
        on_refused: Callable[[InvalidSource], None],
        on_valid: Callable[[], None] = lambda: None,
        interval: float = INTERVAL,
        settling: float = SETTLING,
    ) -> None:
        super().__init__(
            folder,
            initial,
            files=files_of,
            load=self._read,
            version=lambda workspaces: workspaces.version,
            on_change=on_change,
            on_refused=on_refused,
            on_valid=on_valid,
            interval=interval,
            settling=settling,
            name="workspace-watcher",
        )

    def _read(self, folder: Path) -> WorkspaceSet:
        read = WorkspaceSet(read_workspaces(folder))
        if not read and self.current:
            hint = "write NAME.yaml there; tidegate init creates an example"
            raise InvalidSource([Fault(Mark(folder.name, 1, 1), "", "there is no workspace file any more", hint)])
        return read.over(self.current)


def plain_catalogue(catalogue: Catalogue) -> dict[str, object]:
    """Return the declarations of a catalogue, as plain values that MongoDB and JSON can hold.

    The folder of templates is left out: the same files have the same version wherever they lie.
    """
    declared = asdict(catalogue)
    del declared["templates"]
    declared["fields"] = {name: field for name, field in declared["fields"].items() if name not in BUILTINS}
    plain: dict[str, object] = json.loads(json.dumps(declared, default=str))
    return plain


def shape_of_field(catalogue: Catalogue, name: str) -> str | None:
    """Describe in words the values of a field or event; None if the catalogue has none of that name.

    If two shapes differ, stored values are read differently, or count as missing.
    """
    field = catalogue.fields.get(name)
    if field is None:
        return "event" if name in catalogue.events else None
    words = ["many" if field.many else "", field.type.value]
    words += [f"with {field.scale} decimals" if field.scale else "", "in any case" if field.case_ignored else ""]
    made = catalogue.aggregates.get(name)
    if made is not None:
        words.append(f"({made.kind} of {made.event}{f'.{made.property}' if made.property else ''})")
    return " ".join(word for word in words if word)


def derived_shape(catalogue: Catalogue) -> str:
    """Return a digest of the data derived from events: if it changes, the workspace's users must be derived again."""
    made = [
        (aggregate.name, aggregate.event, aggregate.kind, aggregate.property)
        for aggregate in catalogue.aggregates.values()
    ]
    scales = [(p.name, p.scale) for event in catalogue.events.values() for p in event.properties.values()]
    return sha256(repr((sorted(map(repr, made)), sorted(scales) if made else [])).encode()).hexdigest()[:12]


def indexed_shape(catalogue: Catalogue) -> str:
    """Return a digest of the content of an indexed user: if it changes, Elasticsearch must index the users again."""
    fields = [
        (name, field.elastic_path, field.many, field.scale, field.case_ignored)
        for name, field in catalogue.fields.items()
    ]
    return sha256(repr((sorted(fields), sorted(catalogue.events))).encode()).hexdigest()[:12]
