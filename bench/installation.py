"""A folder as `tidegate init` writes it, with `tidegate up`: the installation of a user after five minutes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from bench.processes import Usage, family, kind_of, used_by

BIG: Final = "big"
"""The audience of the campaign to everybody, and the first label of its users' domain."""
_ATTRIBUTES: Final = {"plan": "string", "city": "string", "points": "integer", "team": "string", "segment": "string"}
_WORKSPACE: Final = (
    "workspace: example\ntimezone: UTC\nsender: {name: Example, address: news@example.org}\nattributes:\n"
    + "".join(f"  {name}: {{type: {kind}}}\n" for name, kind in _ATTRIBUTES.items())
)
_LINE: Final = (
    "<p>Line {}: nothing here is new, but a mail that somebody reads has about as much text as this one.</p>\n"
)
BODY: Final = (
    "<html><body><h1>Hello {{ user.first_name }}</h1>\n"
    "<p>Thank you for being with us in {{ user.city }}. Your plan is <b>{{ user.plan }}</b>, your team {{ user.team }}."
    "</p>\n"
    + "".join(_LINE.format(number) for number in range(12))
    + "<p>You have {{ user.points }} points.</p></body></html>\n"
)
SUBJECT: Final = "Hello {{ user.first_name }}"
_READY: Final = 120.0
"""Seconds that an installation may take to start, Elasticsearch included."""
_SETTLE: Final = 180.0
"""Seconds that the feed may take to handle all users."""
_QUIET_CPU: Final = 0.2
"""Processor seconds a second below which the processes count as quiet (an idle installation uses less)."""


class CommandFailed(Exception):
    """A command of the installation did not end as it should."""


def audience(number: int) -> str:
    """Return the segment of the `number`-th small campaign."""
    return f"small{number:02d}"


def user_rows(users: int, small: int, each: int) -> Iterator[tuple[str, str, str, str, str, int, str, str]]:
    """Yield rows of users.csv: `users` of the big segment, then `small` segments of `each`, every address once."""
    for number in range(users + small * each):
        segment = BIG if number < users else audience((number - users) // each)
        plan = "free" if number % 3 else "pro"
        name, city, team = f"Name{number}", f"City{number % 97}", f"team{number % 50}"
        yield f"u{number}", f"u{number}@{segment}.example", name, plan, city, number % 1000, team, segment


def campaign(name: str, segment: str) -> str:
    """Return the file of a one-off campaign to the users of one segment."""
    return (
        f"campaign: {name}\nworkspace: example\nkind: one_off\naudience: {{all: [{{segment: {segment}}}]}}\n"
        f'messages:\n  - name: hello\n    channel: email\n    subject: "{SUBJECT}"\n    body: templates/body.html\n'
    )


def with_processes(lanes: str, processes: int) -> str:
    """Set the number of `deliver` processes in `policies/lanes.yaml`. Raises `ValueError` if that fleet is missing."""
    changed, count = re.subn(r"(?m)^(  deliver: \{lanes: .*processes: )\d+", rf"\g<1>{processes}", lanes)
    if count != 1:
        raise ValueError("policies/lanes.yaml: expected one line `deliver: {lanes: ..., processes: N, ...}`")
    return changed


def without_java(folder: Path) -> dict[str, str]:
    """Return variables that hide Java: a program of that name that prints nothing comes before all others."""
    folder.mkdir(exist_ok=True)
    program = folder / "java"
    program.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "JAVA_HOME": ""}


class Installation:
    """One folder; `port` is the sink's."""

    def __init__(
        self, folder: Path, port: int, *, elastic: bool = True, processes: int = 1, failpoints: str = "", by: str = "up"
    ) -> None:
        """Write the folder; start nothing yet.

        `by` is the command that runs it, `up` or `run`, and `failpoints` are its own (`engine.failpoints`).
        """
        self.folder = folder
        self._by = by
        self._failpoints = failpoints
        self._tidegate = str(Path(sys.executable).with_name("tidegate"))
        self._env = {**os.environ, **({} if elastic else without_java(folder.with_name(f"{folder.name}-no-java")))}
        self.elastic = elastic
        self._up: subprocess.Popen[bytes] | None = None
        ran = subprocess.run(
            [self._tidegate, "init", str(folder)], env=self._env, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise CommandFailed(f"tidegate init: {ran.stderr.strip()}")
        settings = f'{{transport: smtp, host: 127.0.0.1, port: {port}, starttls: "off"}}'
        (folder / "conf/settings.yaml").write_text(
            f"environments:\n  default:\n    email: {settings}\n", encoding="utf-8"
        )
        (folder / "conf/workspaces/example.yaml").write_text(_WORKSPACE, encoding="utf-8")
        for example in (folder / "campaigns").glob("*.yaml"):
            example.unlink()
        (folder / "campaigns/templates/body.html").write_text(BODY, encoding="utf-8")
        if processes > 1:
            lanes = folder / "policies/lanes.yaml"
            lanes.write_text(with_processes(lanes.read_text(encoding="utf-8"), processes), encoding="utf-8")

    @property
    def addresses(self) -> Path:
        """The file with every user's address, one a line."""
        return self.folder / "addresses.txt"

    def write_users(self, users: int, small: int = 0, each: int = 0) -> Path:
        """Write users.csv and the addresses beside it."""
        path = self.folder / "users.csv"
        with path.open("w", encoding="utf-8") as file, self.addresses.open("w", encoding="utf-8") as addresses:
            file.write("user_id,email,first_name,plan,city,points,team,segment\n")
            for row in user_rows(users, small, each):
                file.write(",".join(map(str, row)) + "\n")
                addresses.write(row[1] + "\n")
        return path

    def run(self, *words: str) -> str:
        """Run one command in the folder; return its output. Raises `CommandFailed`."""
        ran = subprocess.run(
            [self._tidegate, *words], cwd=self.folder, env=self._env, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise CommandFailed(f"tidegate {' '.join(words)}: {ran.returncode}: {(ran.stderr or ran.stdout)[-800:]}")
        return ran.stdout

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run `tidegate up` (or `run`) during the block, which begins when everything answers."""
        with (self.folder / "up.log").open("wb") as log:
            env = {**self._env, "TIDEGATE_FAILPOINTS": self._failpoints}
            self._up = subprocess.Popen(
                [self._tidegate, self._by], cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
            yield
        finally:
            self._up.send_signal(signal.SIGINT)
            try:
                self._up.wait(60)
            finally:
                self.run("down")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY
        while True:
            try:
                output = self.run("status")
            except CommandFailed as failed:
                output = str(failed)
            else:
                if not self.elastic or "running, does not answer" not in output:
                    return
            if time.monotonic() > deadline or (self._up is not None and self._up.poll() is not None):
                raise CommandFailed(
                    f"tidegate {self._by} is not ready after {_READY:.0f} s, see {self.folder}/up.log: {output}"
                )
            time.sleep(1)

    def fill(self, users: int, small: int = 0, each: int = 0) -> float:
        """Import the users and wait until the feed has handled them; return the seconds of the import."""
        path = self.write_users(users, small, each)
        began = time.monotonic()
        self.run("import", "users", path.name, "--workspace", "example", "--quiet")
        took = time.monotonic() - began
        deadline = time.monotonic() + _SETTLE
        while json.loads(self.run("clock", "show", "--json"))["open"] is not None and time.monotonic() < deadline:
            time.sleep(1)
        self.wait_until_quiet(_SETTLE)
        return took

    def fill_workspace(self, name: str, users: int) -> None:
        """Add a workspace with users of its own (`NAME-0` and so on), and import them."""
        file = self.folder / f"conf/workspaces/{name}.yaml"
        file.write_text(_WORKSPACE.replace("workspace: example", f"workspace: {name}"), encoding="utf-8")
        rows = self.folder / f"{name}.csv"
        lines = [f"{name}-{number},{name}-{number}@{name}.example,Name{number}" for number in range(users)]
        rows.write_text("\n".join(["user_id,email,first_name", *lines, ""]), encoding="utf-8")
        self.run("import", "users", rows.name, "--workspace", name, "--quiet")

    def apply(self, name: str, segment: str) -> None:
        """Write and apply a campaign."""
        path = self.folder / "campaigns" / f"{name}.yaml"
        path.write_text(campaign(name, segment), encoding="utf-8")
        self.run("campaign", "apply", f"campaigns/{path.name}")

    def apply_plain(
        self,
        name: str,
        workspace: str = "example",
        *,
        audience: str = "{all: []}",
        kind: str = "one_off",
        holdout: str = "99%",
        messages: int = 1,
        apart: str = "0s",
        profile: str = "",
    ) -> None:
        """Write and apply a campaign of short messages, each `apart` from the one before.

        With the default holdout hardly any mail goes out: the campaign is work for those who decide.
        """
        lines = [f"campaign: {name}", f"workspace: {workspace}", f"kind: {kind}", f"audience: {audience}"]
        lines += [f"profile: {profile}"] if profile else []
        lines += [f"holdout: {holdout}", "messages:"]
        for number in range(messages):
            wait = f", wait: {apart}" if number else ""
            lines.append(f'  - {{name: m{number}, channel: email, subject: "Hello", body: "Hello"{wait}}}')
        (self.folder / "campaigns" / f"{name}.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")
        self.run("campaign", "apply", f"campaigns/{name}.yaml")

    def edit(self, path: str, before: str, after: str) -> None:
        """Replace a text that occurs once in a file of the folder. Raises `ValueError` otherwise."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise ValueError(f"{path}: {before!r} occurs {text.count(before)} times")
        file.write_text(text.replace(before, after), encoding="utf-8")

    def usage(self) -> Usage:
        """Return the resources that all processes of the installation have used so far."""
        assert self._up is not None
        return used_by(family(self._up.pid))

    def one_of(self, kind: str) -> psutil.Process:
        """Return a process of a kind that does its work: one that has a parent of the same kind."""
        assert self._up is not None
        alike = [one for one in family(self._up.pid) if kind_of(one.cmdline()) == kind]
        pids = {one.pid for one in alike}
        return next(one for one in alike if one.ppid() in pids)

    def pin(self, core_of: Callable[[str], int]) -> None:
        """Bind every process, with all its threads, to the core that `core_of` gives for its kind."""
        assert self._up is not None
        for process in family(self._up.pid):
            with suppress(psutil.Error, OSError):
                core = core_of(kind_of(process.cmdline()))
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, {core})

    @property
    def mongo_url(self) -> str:
        """The address of the installation's MongoDB."""
        text = (self.folder / "var/services.json").read_text(encoding="utf-8")
        found = re.search(r'"(mongodb://[^"]+)"', text)
        if found is None:
            raise CommandFailed(f"{self.folder}/var/services.json names no MongoDB")
        return found.group(1)

    def wait_until_quiet(self, limit: float, pause: float = 2.0, times: int = 3) -> Usage:
        """Wait until the processes are idle, at most `limit` seconds; return their usage by then."""
        deadline = time.monotonic() + limit
        usage, quiet = self.usage(), 0
        while quiet < times and time.monotonic() < deadline:
            time.sleep(pause)
            now = self.usage()
            quiet = quiet + 1 if now.total - usage.total < _QUIET_CPU * pause else 0
            usage = now
        return usage

    def log_lines(self, query: str) -> Sequence[dict[str, Any]]:
        """Return the lines that `tidegate logs search` finds."""
        lines: list[dict[str, Any]] = json.loads(self.run("logs", "search", query, "--json"))
        return lines
