"""Generate the reader of a table's rows as users: one statement per column, no loop over the catalogue per row.

The generated code reads common cells in place (a text that is stored unchanged) or looks them up: a value out of few,
such as a plan, an age or a day, is read once and remembered. It reads all other cells, and all wrong ones, value by
value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from engine.catalogue.fields import Field
from engine.catalogue.values import LONGEST_STRING, FieldType, fold
from engine.domain.changes import Stored, UserChange
from engine.domain.keys import user_key
from engine.pipeline.importing.addresses import BadAddressError, plain_address, read_address
from engine.pipeline.importing.columns import NOTHING, Layout, identifier, read_value
from engine.pipeline.importing.conversions import Conversion, conversion

MOST_REMEMBERED: Final = 1_000
"""Values remembered per column, the first ones; other values are read one by one."""

LONGEST_REMEMBERED: Final = 64
"""Characters of a remembered value: one takes less than half a kilobyte, and 100 columns less than 50 MB."""

PLAIN_ID: Final = re.compile(r"[!-~](?:[ -~]{0,498}[!-~])?").fullmatch
"""Matches a text that is an id as it is.

Such a text is printable ASCII without a space at its ends, and has at most `columns.LONGEST_ID` bytes.
"""

Values = dict[str, "Stored | None"]

Put: TypeAlias = "Callable[[Values, Field, object], None]"
"""Reads a value of a field into the values of its user. Raises `RowFaultError`."""

_MISSING: Final = object()


def put(fields: Values, field: Field, raw: object) -> None:
    """Read one value of a user into its path, and into its folded copy if case is ignored. Raises `RowFaultError`."""
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
            folded = [fold(str(item)) for item in value]
        fields[f"k.{field.name}"] = folded


def put_address(fields: Values, field: Field, raw: object) -> None:
    """Read the user's address into its path; an empty text removes it. Raises `BadAddressError`."""
    value = read_value(field.name, field, raw)
    fields[field.name] = read_address(value) if isinstance(value, str) and value else None


def putter(field: Field, layout: Layout, omitted: list[str]) -> Put:
    """Return the function that reads a value of `field`; with `omit_addresses` it adds bad ones to `omitted`."""
    if not is_address(field):
        return put
    if not layout.omit_addresses:
        return put_address

    def put_good(fields: Values, field: Field, raw: object) -> None:
        try:
            put_address(fields, field, raw)
        except BadAddressError as error:
            omitted.append(str(error))

    return put_good


def is_address(field: Field) -> bool:
    """Return whether the field is the user's e-mail address."""
    return field.kind == "builtin" and field.name == "email"


def conversions_of(fields: Iterable[Field], layout: Layout) -> dict[str, Conversion]:
    """Return the conversions of those fields that have one, by name."""
    return {field.name: converter for field in fields if (converter := conversion(field, layout)) is not None}


def build_reader(
    workspace: str,
    place: int,
    columns: Sequence[tuple[int, Field]],
    *,
    defaults: Mapping[str, str],
    extra: Mapping[Field, str],
    conversions: Mapping[str, Conversion],
    puts: Mapping[str, Put],
) -> Callable[[Sequence[Any]], UserChange]:
    """Return the function that turns cells into a change; it raises `RowFaultError`.

    `place` is the index of the id's cell, `columns` holds the index of each field's cell. An empty cell means its
    default or, without one, no value. `extra` holds texts for fields that have no column. `conversions` run before
    `puts` reads the value; both are by field name.
    """
    space: dict[str, object] = {
        "plain_id": PLAIN_ID,
        "identifier": identifier,
        "user_key": user_key,
        "UserChange": UserChange,
        "MISSING": _MISSING,
        "NOTHING": NOTHING,
        "plain_address": plain_address,
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
        space[f"put{number}"] = puts[field.name]
        lines += [f"    raw = values[{at}]"]
        nothing = ""
        if field.name in conversions:
            space[f"convert{number}"] = conversions[field.name]
            lines += [f"    raw = convert{number}(raw)"]
            nothing = "raw is NOTHING or "
        if default is None:
            lines += [f"    if not ({nothing}raw is None or raw == ''):"]
        else:
            lines += [f"    if {nothing}raw is None or raw == '':", f"        raw = {default!r}", "    if True:"]
        lines += [f"        {line}" for line in _column(number, field, space, puts[field.name])]
    for number, (field, text) in enumerate(extra.items()):
        space[f"extra{number}"], space[f"extra_put{number}"] = field, puts[field.name]
        lines += [f"    extra_put{number}(fields, extra{number}, {text!r})"]
    lines += [f"    return UserChange(user_key({workspace!r}, uid), fields)"]
    exec(compile("\n".join(lines), f"<cells of {workspace}>", "exec"), space)  # noqa: S102 - our own source, names quoted
    return cast("Callable[[Sequence[Any]], UserChange]", space["read"])


def _column(number: int, field: Field, space: dict[str, object], put_one: Put) -> list[str]:
    """Return the statements that read `raw` as a value of `field`."""
    path = field.name if field.kind == "builtin" else f"a.{field.name}"
    if is_address(field):
        return [
            "if plain_address(raw):",
            f"    fields[{path!r}] = raw",
            "else:",
            f"    put{number}(fields, field{number}, raw)",
        ]
    if field.type is FieldType.STRING and not (field.many or field.case_ignored) and field.name != "timezone":
        return [
            f"if type(raw) is str and len(raw) <= {LONGEST_STRING} and raw.isascii() and '\\0' not in raw:",
            f"    fields[{path!r}] = raw",
            "else:",
            f"    put{number}(fields, field{number}, raw)",
        ]
    known: dict[str, Values] = {}
    space[f"known{number}"], space[f"learn{number}"] = known, _learner(field, known, put_one)
    return [
        f"found = known{number}.get(raw, MISSING) if type(raw) is str else MISSING",
        "if found is MISSING:",
        f"    found = learn{number}(raw)",
        "fields.update(found)",
    ]


def _learner(field: Field, known: dict[str, Values], put_one: Put) -> Callable[[object], Values]:
    """Return a function that reads a value, and remembers it if it may be one of few."""

    def learn(raw: object) -> Values:
        fields: Values = {}
        put_one(fields, field, raw)
        if type(raw) is str and len(raw) <= LONGEST_REMEMBERED and len(known) < MOST_REMEMBERED:
            known[raw] = fields
        return fields

    return learn
