"""Reads variables of the process and of a `.env` file, with the line that sets each one.

The syntax of the file is python-dotenv's: `NAME=value`, `export NAME=value`, quotes, comments, `${NAME}`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import Fault, InvalidSource, Mark, WrongCall
from engine.settings.model import PREFIX, Settings
from engine.yamlfile.scalars import nearest

DOTENV: Final = Path(".env")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its value and its source (`environment` or `.env:3`)."""

    value: str
    source: str


def read_dotenv(file: Path) -> dict[str, Variable]:
    """Return the variables of a `.env` file, or none if it does not exist.

    `${NAME}` reads the process's variables first. Raises `InvalidSource` for lines that are no assignment, and
    `WrongCall` if the file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "it is not UTF-8"
        raise WrongCall(f"{file} cannot be read: {why}") from error
    from dotenv.main import resolve_variables
    from dotenv.parser import parse_stream

    pairs: list[tuple[str, str]] = []
    lines: dict[str, int] = {}
    faults: list[Fault] = []
    for binding in parse_stream(io.StringIO(text)):
        source = binding.original.string
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.key is None and not binding.error:
            continue  # a comment, or an empty line
        if binding.key is None or binding.value is None:
            # Do not repeat the line: it may hold a password.
            faults.append(Fault(Mark(str(file), line, 1), "", "expected NAME=value", "quote a value of several lines"))
        else:
            pairs.append((binding.key, binding.value))
            lines[binding.key] = line
    if faults:
        raise InvalidSource(faults)
    resolved = resolve_variables(pairs, override=False)
    return {name: Variable(value or "", f"{file}:{lines[name]}") for name, value in resolved.items()}


def own_variables() -> dict[str, Variable]:
    """Return this process's variables that start with the engine's prefix."""
    return {name: Variable(value, "environment") for name, value in os.environ.items() if name.startswith(PREFIX)}


def merged(dotenv: Mapping[str, Variable], own: Mapping[str, Variable]) -> dict[str, Variable]:
    """Merge the process's variables over those of the file; a variable that is set but empty hides the file's."""
    hidden = {name.upper() for name in own}
    return {**{name: variable for name, variable in dotenv.items() if name.upper() not in hidden}, **own}


def settings_among(variables: Mapping[str, Variable]) -> Iterator[tuple[str, str, str, str]]:
    """Yield section, key, value and source of each variable that is a setting; an empty variable gives no value.

    Raises `WrongCall` for an unknown section, for one underscore instead of two, and for a section that is not JSON.
    """
    for name, variable in variables.items():
        if not name.upper().startswith(PREFIX):
            continue
        section, doubled, key = name.upper().removeprefix(PREFIX).lower().partition("__")
        source = f"{variable.source} {name}"
        if doubled:
            if section not in Settings.model_fields:
                remedy = nearest(section, tuple(Settings.model_fields))
                raise WrongCall(f'{source}: there is no section "{section}"', remedy=remedy)
            if variable.value:
                yield section, key, variable.value, source
        elif section in Settings.model_fields:
            yield from _whole_section(section, variable.value, source)
        elif meant := _with_one_underscore(section):
            raise WrongCall(f"{source}: the engine does not read this", remedy=f"did you mean {meant}?")


def _whole_section(section: str, text: str, source: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the settings of a whole section given as JSON: `TIDEGATE_EMAIL={"transport": "smtp"}`."""
    if not text:
        return
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise WrongCall(f"{source}: expected a JSON object", remedy=f"write {PREFIX}SECTION__KEY=value")
    for key, value in values.items():
        yield section, key, value if isinstance(value, str) else json.dumps(value), source


def _with_one_underscore(name: str) -> str:
    """Return the setting that e.g. `services_mongo_url` means; empty if it means none, e.g. `env`."""
    for section, described in Settings.model_fields.items():
        keys = getattr(described.annotation, "model_fields", {})
        if name.removeprefix(f"{section}_") in keys and name.startswith(f"{section}_"):
            return f"{PREFIX}{section.upper()}__{name.removeprefix(f'{section}_').upper()}"
    return ""
