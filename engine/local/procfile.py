"""The Procfile: one line per process type, `name: command`; honcho, foreman, Heroku and systemd read the same file."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import Fault, InvalidSource, Mark, WrongCall

_LINE: Final = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SHELL: Final = re.compile(r"[|&;<>()`*?\[\]{}~#!\n$]")  # what needs a shell to be understood


@dataclass(frozen=True, slots=True)
class ProcessType:
    """One line: its name and the command as it stands there."""

    name: str
    command: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How a command is run: arguments, variables added, and whether a shell stands between us and it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    by_shell: bool


def read_procfile(path: Path) -> tuple[ProcessType, ...]:
    """The process types of a Procfile, in its order. Raises `InvalidSource`; `WrongCall` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise WrongCall(f"{path}: {why}", remedy="write one with `tidegate init`, or name another") from error
    types: dict[str, ProcessType] = {}
    faults = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        mark = Mark(str(path), number, 1)
        if not (found := _LINE.fullmatch(line.rstrip())):
            faults.append(Fault(mark, "", f"expected `name: command`, got {line.strip()[:60]!r}"))
        elif found[1] in types:
            faults.append(Fault(mark, found[1], "this name stands in the file twice", "give one of them another"))
        else:
            types[found[1]] = ProcessType(found[1], found[2])
    if not types and not faults:
        faults.append(Fault(Mark(str(path), 1, 1), "", "no process type", "write lines such as `web: command`"))
    if faults:
        raise InvalidSource(faults)
    return tuple(types.values())


def parse_pairs(texts: Iterable[str], names: Sequence[str], what: str) -> dict[str, str]:
    """Read `slow=4` or `slow=4,web=0` (each text may hold several) for process types in `names`.

    `what` says in errors what is given, e.g. `scale`. Raises `WrongCall` for an unknown name or a missing value.
    """
    pairs = {}
    for pair in (part for text in texts for part in text.split(",")):
        name, equals, value = pair.strip().partition("=")
        if not equals or not value:
            raise WrongCall(f"{what}: expected name=value, got {pair.strip()!r}", remedy=f"e.g. {names[0]}=2")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise WrongCall(f"{what}: no process type {name!r} in the Procfile", remedy=hint)
        pairs[name] = value
    return pairs


def parse_scale(texts: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """How many of each: `slow=4`; 0 leaves one out. Raises `WrongCall`."""
    scale = {}
    for name, value in parse_pairs(texts, names, "scale").items():
        if not value.isascii() or not value.isdigit():
            raise WrongCall(f"scale: {name}: expected a whole number, got {value!r}", remedy=f"e.g. {name}=2")
        scale[name] = int(value)
    return scale


def launch(command: str, env: Mapping[str, str]) -> Launch:
    """How to run `command` with the environment `env`.

    A plain command runs without a shell, its `$NAME`s filled in, so that a signal reaches the program itself, once: a
    worker fleet that hears TERM twice gives up its work. Anything else runs by `/bin/sh -c`.
    """
    by_shell = Launch(("/bin/sh", "-c", command), {}, by_shell=True)
    if _SHELL.search(_VARIABLE.sub("", command)) or ("$" in command and "'" in command):
        return by_shell
    try:
        words = [filled for word in shlex.split(command) if (filled := _filled(word, env)) or not word]
    except ValueError:  # a quote without its end: let the shell say so
        return by_shell
    added = {}
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        added[found[1]] = found[2]
        words.pop(0)
    return Launch(tuple(words), added, by_shell=False) if words else by_shell


def _filled(word: str, env: Mapping[str, str]) -> str:
    """`word` with `$NAME` and `${NAME}` replaced; an unset one is empty, as in a shell."""
    return _VARIABLE.sub(lambda found: env.get(found[1] or found[2], ""), word)


def environment(*layers: Mapping[str, str]) -> dict[str, str]:
    """Our environment with `layers` over it, and output unbuffered, so that lines appear when they are written."""
    merged = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for layer in layers:
        merged.update(layer)
    return merged
