"""The generated reader of a table's rows as users: one statement a column, no loop over the catalogue per row.

What is common is read in place (a text that is what it is) or looked up (a value of few, such as a plan, an age or a
day, is read once and remembered); everything else, and everything that is wrong, goes the way of a single value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from engine.domain.changes import Stored, UserChange
from engine.domain.keys import user_key
from engine.pipeline.importing.columns import identifier, read_value
from engine.predicate.fields import Field, FieldType, fold
from engine.predicate.values import LONGEST_STRING

MOST_REMEMBERED: Final = 1_000
"""Values that are kept of one column, the first ones; others are read value by value."""

LONGEST_REMEMBERED: Final = 64
"""Characters of a value that is kept: then one takes less than half a kilobyte, and 100 columns less than 50 MB."""

PLAIN_ID: Final = re.compile(r"[!-~](?:[ -~]{0,498}[!-~])?").fullmatch
"""Whether a text is an id as it stands: ASCII, printable, no space at its ends, at most `columns.LONGEST_ID` bytes."""

Values = dict[str, "Stored | None"]

_MISSING: Final = object()


def put(fields: Values, field: Field, raw: object) -> None:
    """Read one value of a user into its path, and its folded copy where the case is ignored. Raises `RowFaultError`."""
    value = read_value(field.name, field, raw)
    if field.kind == "builtin":
        fields[field.name] = value
        return
    fields[f"a.{field.name}"] = value
    if field.case_ignored:
        folded: Stored | None = None
        if isinstance(value, str):
            folded = fold(value)
        elif isinstance(value, list):
            folded = [fold(str(one)) for one in value]
        fields[f"k.{field.name}"] = folded


def build_reader(
    workspace: str,
    place: int,
    columns: Sequence[tuple[int, Field]],
    defaults: Mapping[str, str],
    extra: Mapping[Field, str],
) -> Callable[[Sequence[Any]], UserChange]:
    """The function from cells to a change; it raises `RowFaultError`.

    The id stands at `place`, the fields at those of `columns`; an empty cell is read as its default, or says nothing.
    `extra` are texts for fields that have no column.
    """
    space: dict[str, object] = {
        "plain_id": PLAIN_ID,
        "identifier": identifier,
        "user_key": user_key,
        "UserChange": UserChange,
        "put": put,
        "MISSING": _MISSING,
    }
    lines = [
        "def read(values):",
        "    fields = {}",
        f"    uid = values[{place}]",
        "    if type(uid) is not str or not plain_id(uid):",
        "        uid = identifier(uid, 'user_id')",
    ]
    for number, (at, field) in enumerate(columns):
        space[f"field{number}"] = field
        default = defaults.get(field.name)
        lines += [f"    raw = values[{at}]"]
        if default is None:
            lines += ["    if raw is not None and raw != '':"]
        else:
            lines += ["    if raw is None or raw == '':", f"        raw = {default!r}", "    if True:"]
        lines += [f"        {line}" for line in _column(number, field, space)]
    for number, (field, text) in enumerate(extra.items()):
        space[f"extra{number}"] = field
        lines += [f"    put(fields, extra{number}, {text!r})"]
    lines += [f"    return UserChange(user_key({workspace!r}, uid), fields)"]
    exec(compile("\n".join(lines), f"<cells of {workspace}>", "exec"), space)  # noqa: S102 - our own source, names quoted
    return cast("Callable[[Sequence[Any]], UserChange]", space["read"])


def _column(number: int, field: Field, space: dict[str, object]) -> list[str]:
    """The statements that read `raw` as a value of `field`."""
    path = field.name if field.kind == "builtin" else f"a.{field.name}"
    if field.type is FieldType.STRING and not (field.many or field.case_ignored) and field.name != "timezone":
        return [
            f"if type(raw) is str and len(raw) <= {LONGEST_STRING} and raw.isascii() and '\\0' not in raw:",
            f"    fields[{path!r}] = raw",
            "else:",
            f"    put(fields, field{number}, raw)",
        ]
    known: dict[str, Values] = {}
    space[f"known{number}"], space[f"learn{number}"] = known, _learner(field, known)
    return [
        f"found = known{number}.get(raw, MISSING) if type(raw) is str else MISSING",
        "if found is MISSING:",
        f"    found = learn{number}(raw)",
        "fields.update(found)",
    ]


def _learner(field: Field, known: dict[str, Values]) -> Callable[[object], Values]:
    """Reads a value, and remembers it if it may be one of few."""

    def learn(raw: object) -> Values:
        fields: Values = {}
        put(fields, field, raw)
        if type(raw) is str and len(raw) <= LONGEST_REMEMBERED and len(known) < MOST_REMEMBERED:
            known[raw] = fields
        return fields

    return learn
