"""The same Procfile under honcho and under our supervisor: each line gets the same arguments and environment.

Each line is its own process type, so that one run of each shows them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest

from engine.local.processes.output import Output
from engine.local.processes.procfile import read_procfile
from engine.local.processes.supervisor import Backoff, Supervisor

SHOW: Final = """\
import json, os, sys
names = ("PORT", "FOO", "BAR", "GIVEN")
told = {"argv": sys.argv[1:], **{name: os.environ.get(name) for name in names}, "cwd": os.getcwd()}
print("told", json.dumps(told), flush=True)
sys.exit(int(os.environ.get("CODE", "0")))
"""
# what a line says after `name: `; `show` is the program above
LINES: Final = [
    "show plain",
    "exec show exec",
    "FOO=bar show assignment",
    "FOO=bar BAR=$FOO-2 exec show two assignments",
    "FOO=bar BAR=$FOO-2 show two assignments",
    "FOO='a b' show \"double  quoted\" 'single $GIVEN' mixed'quo'\"tes\" ''",
    'show "$GIVEN" $GIVEN ${GIVEN} ${UNSET:-default} $UNSET',
    "show $PORT --port=$PORT",
    "CODE=3 show code",
    'show back\\\\slash "in \\\\ double \\$GIVEN" es\\ caped',
    "show kept # a comment",
    "show 'not # a comment'",
    "show ~ x~ *.txt no*match [a-z]",
    "show one && CODE=4 show two",
    "false || show or",
    "show first; show second",
    "echo piped | xargs show",
    "show {a,b} a=b -x --y=z @ % + :",
    "cd folder && show elsewhere",
    "export FOO=exported; exec show builtin",
    "if true; then show keyword; fi",
    "(show subshell)",
    "{ show group; }",
    ": nothing; show colon",
    "set -e; show set; false; show never",
    "show $(echo substituted) `echo too` $((1 + 2))",
    "eval 'FOO=evaluated show eval'",
    "command show command",
    "env FOO=env show env",
    "show $0 $# unset$1",
    "show > out.data; grep -c told out.data",
    "no-such-program --at all",
    "./not-executable.txt",
    "show 'a quote without its end",
    "sh -c 'show nested; exit 5'",
    "trap 'show trapped' EXIT; exit 6",
    "ulimit -n 512; show ulimit",
    "! show not",
    "show unicode é ☃",
    "exit 7",
]
DRIVER: Final = """\
import sys
from honcho.environ import expand_processes, parse_procfile
from honcho.process import Popen
import json, os
text = open("Procfile", encoding="utf-8").read()
told = {}
for one in expand_processes(parse_procfile(text).processes, env={}, port=5000):
    child = Popen(one.cmd, env={**os.environ, **one.env})
    out, _ = child.communicate()
    told[one.name.partition(".")[0]] = [child.returncode, out.decode()]
print(json.dumps(told))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "show"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{SHOW}")
    program.chmod(0o755)
    for name in ("a.txt", "not-executable.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIVEN", "two words")
    monkeypatch.delenv("PORT", raising=False)
    lines = [f"line{number}: {line}\n" for number, line in enumerate(LINES)]
    (tmp_path / "Procfile").write_text("# all of them\n" + "".join(lines), encoding="utf-8")
    return tmp_path


def by_honcho(folder: Path) -> dict[str, list[Any]]:
    """Return exit code and output of each line under honcho's own classes."""
    done = subprocess.run([sys.executable, "-c", DRIVER], cwd=folder, capture_output=True, text=True, check=True)
    document: dict[str, list[Any]] = json.loads(done.stdout)
    return document


def by_us(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Return exit code and output of each line under our supervisor, which ends when every line has ended once."""
    types = read_procfile(folder / "Procfile")
    stream = StringIO()
    output = Output(stream, [kind.name for kind in types], now=datetime.now)
    exits: dict[str, str] = {}

    def tell(states: Any) -> None:
        exits.update({state.name: state.last_exit for state in states if state.last_exit})
        if len(exits) == len(types):
            os.kill(os.getpid(), 15)

    never = Backoff(timedelta(hours=1), timedelta(hours=1))
    assert Supervisor(types, output, folder, backoff=never, tell=tell).run() == 0
    said: dict[str, str] = dict.fromkeys(exits, "")
    for line in stream.getvalue().splitlines():
        name, _, text = line[9:].partition("| ")
        if name.strip() in said:
            said[name.strip()] += f"{text}\n"
    # the shell's own complaint names its `exec`
    return {
        name: [int(how.removeprefix("with code ")), said[name].replace(": exec: ", ": ")] for name, how in exits.items()
    }


def test_each_line_runs_as_honcho_runs_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = by_honcho(folder), by_us(folder, monkeypatch)
    assert len(ours) == len(LINES)
    count = sum(output.count("told {") for _, output in ours.values())
    assert count >= len(LINES) - 8, "the program was run"
    for number, line in enumerate(LINES):
        assert ours[f"line{number}"] == theirs[f"line{number}"], line
