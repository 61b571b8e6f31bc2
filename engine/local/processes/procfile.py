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
"""`PORT` of the first process of the first type, and the distance to the next type's: as in honcho and foreman."""


@dataclass(frozen=True, slots=True)
class ProcessType:
    """One line: its name and its command, unchanged."""

    name: str
    command: str


def read_procfile(path: Path) -> tuple[ProcessType, ...]:
    """Return the process types of a Procfile, in order. Raises `InvalidSource`; `WrongCall` if it cannot be read."""
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
        if not (match := _LINE.fullmatch(line.rstrip())):
            faults.append(Fault(mark, "", f"expected `name: command`, got {line.strip()[:60]!r}"))
        elif match[1] in types:
            faults.append(Fault(mark, match[1], "this name is in the file twice", "give one of them another name"))
        else:
            types[match[1]] = ProcessType(match[1], match[2])
    if not types and not faults:
        faults.append(Fault(Mark(str(path), 1, 1), "", "no process type", "write lines such as `web: command`"))
    if faults:
        raise InvalidSource(faults)
    return tuple(types.values())


def parse_pairs(texts: Iterable[str], names: Sequence[str], what: str) -> dict[str, str]:
    """Parse `slow=4` or `slow=4,web=0` (each text may hold several) for process types in `names`.

    `what` names the pairs in errors, e.g. `scale`. Raises `WrongCall` for an unknown name or a missing value.
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
    """Parse the number of processes per type: `slow=4`; 0 leaves a type out. Raises `WrongCall`."""
    scale = {}
    for name, value in parse_pairs(texts, names, "scale").items():
        if not value.isascii() or not value.isdigit():
            raise WrongCall(f"scale: {name}: expected a whole number, got {value!r}", remedy=f"e.g. {name}=2")
        scale[name] = int(value)
    return scale


def by_shell(command: str) -> tuple[str, ...]:
    """Return the arguments that run a line: `/bin/sh -c`, as in honcho, foreman and Heroku, so it means the same here.

    If the line is one plain command, the shell runs it with `exec`, so that the program itself is our child and a
    signal reaches it once. A worker fleet that receives TERM twice gives up its work.
    """
    match = _PLAIN.match(command)
    if match is None or match["program"] in _BUILTINS or _OPERATORS.search(command):
        return ("/bin/sh", "-c", command)
    return ("/bin/sh", "-c", f"{match['assignments']}exec {command[match.end('assignments') :]}")


def ports(types: Sequence[ProcessType], scale: Mapping[str, int], given: str | None) -> Iterator[int]:
    """Yield the `PORT` of each process, in order of the types: `given` or 5000, plus 1 per process and 100 per type.

    A type that its scale leaves out keeps its hundred. A `given` that is no number counts as not given.
    """
    first = int(given) if given and given.isascii() and given.isdigit() else FIRST_PORT
    for place, kind in enumerate(types):
        yield from range(first + place * PORTS_A_TYPE, first + place * PORTS_A_TYPE + scale.get(kind.name, 1))


def environment(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with `layers` over it, our own programs first on `PATH`, and output unbuffered.

    A line such as `tidegate worker fast` then runs the same tidegate that reads it, even if its folder is not on
    `PATH`, and output lines appear when they are written.
    """
    merged = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for layer in layers:
        merged.update(layer)
    merged["PATH"] = os.pathsep.join([*own_folders(), merged.get("PATH") or os.defpath])
    return merged


def own_folders() -> list[str]:
    """Return the folders of this program's commands: that of its Python, and that of the called script."""
    called = Path(sys.argv[0])
    folders = [Path(sys.executable).parent]
    if called.name == PROGRAM and called.is_file():
        folders.append(called.absolute().parent)
    return list(dict.fromkeys(map(str, folders)))
