"""The Procfile: one line per process type, `name: command`; honcho, foreman, Heroku and systemd read the same file."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import Fault, InvalidSource, Mark, WrongCall

_LINE: Final = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
_OPERATORS: Final = re.compile(r"[|&;<>()`\n]")  # more than one command, or another way to run it
_PLAIN: Final = re.compile(
    r"""(?P<assignments>(?:[A-Za-z_]\w*=(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])*\s+)*)"""
    r"""(?P<program>[\w./+-]+)(?:\s|$)""",
    re.ASCII,
)
_BUILTINS: Final = frozenset(
    re.findall(
        r"\S+",
        """
        . : alias bg bind break builtin caller case cd chdir command compgen complete continue coproc declare dirs
        disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help
        history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return select
        set shift shopt source suspend test then time times trap true type typeset ulimit umask unalias unset until
        wait while
        """,
    )
)
"""Words that a shell runs itself; a program of the same name may do something else."""
PROGRAM: Final = "tidegate"
FIRST_PORT: Final = 5000
PORTS_A_TYPE: Final = 100
"""`PORT` of the first process of the first type, and its distance to the next type's: as honcho and foreman have it."""


@dataclass(frozen=True, slots=True)
class ProcessType:
    """One line: its name and the command as it stands there."""

    name: str
    command: str


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


def by_shell(command: str) -> tuple[str, ...]:
    """How a line is run: by `/bin/sh -c`, as honcho, foreman and Heroku run it, so that it means the same here.

    In a line that is one plain command the shell is told to give it its place (`exec`), so that the program itself is
    our child: a signal then reaches it once. A worker fleet that hears TERM twice gives up its work.
    """
    found = _PLAIN.match(command)
    if found is None or found["program"] in _BUILTINS or _OPERATORS.search(command):
        return ("/bin/sh", "-c", command)
    return ("/bin/sh", "-c", f"{found['assignments']}exec {command[found.end('assignments') :]}")


def ports(types: Sequence[ProcessType], scale: Mapping[str, int], given: str | None) -> Iterator[int]:
    """The `PORT` of each process, in order of the types: `given` or 5000, the next process one more, the next type 100.

    A type that is left out by its scale keeps its hundred. A `given` that is no number counts as not given.
    """
    first = int(given) if given and given.isascii() and given.isdigit() else FIRST_PORT
    for place, kind in enumerate(types):
        yield from range(first + place * PORTS_A_TYPE, first + place * PORTS_A_TYPE + scale.get(kind.name, 1))


def environment(*layers: Mapping[str, str]) -> dict[str, str]:
    """Our environment with `layers` over it, our own programs first on `PATH`, and output unbuffered.

    A line such as `tidegate worker fast` means the tidegate that reads it, also where its folder is not on `PATH`;
    and lines of output appear when they are written.
    """
    merged = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for layer in layers:
        merged.update(layer)
    merged["PATH"] = os.pathsep.join([*own_folders(), merged.get("PATH") or os.defpath])
    return merged


def own_folders() -> list[str]:
    """Where this program's commands lie: beside its Python, and beside the script that was called."""
    called = Path(sys.argv[0])
    folders = [Path(sys.executable).parent]
    if called.name == PROGRAM and called.is_file():
        folders.append(called.absolute().parent)
    return list(dict.fromkeys(map(str, folders)))
