"""Merges the sources of settings and remembers the origin of each value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from engine.clock import format_duration
from engine.errors import Fault, InvalidSource, Mark, WrongCall
from engine.settings.model import PREFIX, Settings
from engine.settings.variables import DOTENV, Variable, merged, own_variables, read_dotenv, settings_among
from engine.yamlfile.models import validate
from engine.yamlfile.nodes import Node, read
from engine.yamlfile.scalars import nearest

ENVIRONMENT: Final = "TIDEGATE_ENV"
SETTINGS_FILE: Final = "TIDEGATE_SETTINGS"
SETTINGS: Final = "conf/settings.yaml"
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting: its dotted key, its value without secrets, and its source."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, the environment they are for, and the merged document they were read from.

    `handed` holds the variables by which another process reads the same settings: those of `.env`, and the flags.
    """

    settings: Settings
    environment: str
    node: Node
    handed: Mapping[str, str] = field(default_factory=dict, repr=False)

    def origins(self) -> list[Origin]:
        """Return every setting in the order of the models, for `tidegate check --origin`."""
        origins: list[Origin] = []
        for section in Settings.model_fields:
            part = getattr(self.settings, section)
            for key in type(part).model_fields:
                mark = self.node.find(section, key).mark
                given = section in _keys(self.node) and key in _keys(self.node.find(section))
                source = "default" if not given else mark.path if mark.line == 0 else str(mark)
                origins.append(Origin(f"{section}.{key}", _show(getattr(part, key)), source))
        return origins


def load_settings(
    file: Path | None = None,
    *,
    environment: str | None = None,
    flags: Mapping[str, object] | None = None,
    dotenv: Path = DOTENV,
) -> LoadedSettings:
    """Return the settings from `file`, `dotenv` (may be absent), the process's variables and `flags`.

    The last one wins. Without `file`, TIDEGATE_SETTINGS names the file, else it is `conf/settings.yaml`; only this
    default file may be absent. `environment` picks an environment of the file; without it `TIDEGATE_ENV` does, else
    `default`. `flags` maps a dotted key to its value; None means that the flag was not given. Raises `InvalidSource`
    with every mistake of a file, and `WrongCall` for a named file that does not exist or for a wrong variable or flag.
    """
    variables = merged(read_dotenv(dotenv), own_variables())
    chosen = environment or _value_of(variables, ENVIRONMENT) or DEFAULT
    named = str(file) if file else _value_of(variables, SETTINGS_FILE)
    path = Path(named or SETTINGS)
    if named and not path.exists():
        source = "--settings" if file else f"{SETTINGS_FILE} ({variables[SETTINGS_FILE].source})"
        raise WrongCall(f"the settings file {path} does not exist", remedy=f"{source} names it")
    node = _over(_file(path, chosen), _variables(variables))
    handed = {name: variable.value for name, variable in variables.items() if name not in os.environ}
    for key, value in (flags or {}).items():
        if value is not None:
            section, _, name = key.partition(".")
            node = _over(node, _given(section, name, value, f"--set {key}"))
            handed[f"{PREFIX}{section}__{name}".upper()] = str(value)
    if environment:
        handed[ENVIRONMENT] = environment
    if file:
        handed[SETTINGS_FILE] = str(file)
    try:
        return LoadedSettings(validate(Settings, node), chosen, node, handed)
    except InvalidSource as error:
        if all(fault.mark.line for fault in error.faults):
            raise
        lines = [str(fault) if fault.mark.line else _without_line(fault) for fault in error.faults]
        raise WrongCall("\n".join(lines)) from error


def _value_of(variables: Mapping[str, Variable], name: str) -> str:
    return variables[name].value if name in variables else ""


def _file(file: Path, chosen: str) -> Node:
    """Return the chosen environment of the file merged over its default one."""
    if not file.exists():
        if chosen != DEFAULT:
            raise WrongCall(
                f'{file} does not exist, so it has no environment "{chosen}"', remedy=f"unset {ENVIRONMENT}"
            )
        return Node(Mark(str(file), 1, 1), {})
    root = read(file)
    faults = [
        Fault(root.key_mark(key), key, "unknown key", "the file holds environments:")
        for key in _keys(root)
        if key != "environments"
    ]
    environments = _keys(root.find("environments")) if not faults else {}
    for name, node in environments.items():
        if not isinstance(node.value, dict):
            faults.append(Fault(node.mark, f"environments.{name}", "expected keys and values"))
    if chosen not in environments and (chosen != DEFAULT or not environments) and not faults:
        hint = nearest(chosen, list(environments))
        place = root.find("environments").mark
        faults.append(Fault(place, "environments", f'there is no environment "{chosen}"', hint))
    if faults:
        raise InvalidSource(faults)
    empty = Node(root.mark, {})
    return _over(environments.get(DEFAULT, empty), environments.get(chosen, empty))


def _variables(variables: Mapping[str, Variable]) -> Node:
    """Return the settings that the variables give."""
    node = Node(Mark("environment", 0, 0), {})
    for section, key, value, source in settings_among(variables):
        node = _over(node, _given(section, key, value, source))
    return node


def _given(section: str, key: str, value: object, source: str) -> Node:
    mark = Mark(source, 0, 0)
    scalar = value if isinstance(value, str | int | float | bool) else str(value)
    return Node(mark, {section: Node(mark, {key: Node(mark, scalar)}, {key: mark})}, {section: mark})


def _over(below: Node, above: Node) -> Node:
    """Merge `above` over `below`: mappings are merged, any other value replaces."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = _over(merged[key], node) if key in merged else node
    return Node(below.mark, merged, {**below.keys, **above.keys})


def _without_line(fault: Fault) -> str:
    hint = f" ({fault.suggestion})" if fault.suggestion else ""
    return f"{fault.mark.path}: {fault.where}: {fault.problem}{hint}"


def _keys(node: Node) -> Mapping[str, Node]:
    return node.value if isinstance(node.value, dict) else {}


def _show(value: object) -> str:
    """Return a printable value: a secret only as "(set)", an address without credentials and options."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        if "://" not in text:
            return "(set)" if text else ""
        parts = urlsplit(text)
        credentials, _, host = parts.netloc.rpartition("@")
        return f"{parts.scheme}://{'***@' if credentials else ''}{host}{parts.path}{'?***' if parts.query else ''}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
