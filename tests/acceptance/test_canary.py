"""Run the whole pipeline with faults everywhere: no log or process output holds personal data or secrets.

A thousand users have their own addresses, names and secrets. The logs still tell the story of each delivery.
"""

from __future__ import annotations

import json
import logging as stdlib_logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import run
from engine.domain.keys import user_id_of
from engine.pipeline.evaluation import evaluate
from engine.settings.secrets import secrets
from engine.telemetry import logging
from tests.integration.channels.smtp.test_channel_smtp import Sink, serving
from tests.support.installation import Installation
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World

USERS = 1_000
SMTP_PASSWORD = "kanarek-smtp-p4ssw0rd"
REDIS_PASSWORD = "kanarek-redis-p4ssw0rd"
STEMS = ("kanarek", "k4nari")
"""Stems that no log may contain: each address, name, secret and password contains one of them."""


class Refusing(Sink):
    """A server that quotes the address in its answer, as many do: it refuses one in ten and defers one in ten."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - aiosmtpd's hook
        number = int("".join(letter for letter in address if letter.isdigit())[-4:] or 0)
        if number % 10 == 3:
            return f"550 5.1.1 <{address}>: Recipient address rejected: no mailbox {address}"
        if number % 10 == 4:
            return f"451 4.7.1 <{address}>: greylisted, {address} try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def user_id(number: int) -> str:
    """Return the id of a user; every second id is an address."""
    return f"kanarek.id{number:04d}@x.example" if number % 2 else f"user-{number:04d}"


def rows() -> str:
    """Return the import file; one in fifty rows is unreadable, and its mistake is in a value that must stay hidden."""
    lines = ["user_id,email,first_name,note,age"]
    for n in range(USERS):
        age = f"k4nari-age-{n}" if n % 50 == 49 else n % 9
        lines.append(f"{user_id(n)},kanarek{n:04d}@mail.example,Kanarek{n:04d},k4nari-token-{n:04d},{age}")
    return "\n".join(lines) + "\n"


def clean(text: str) -> None:
    folded = text.lower()
    for stem in STEMS:
        at = folded.find(stem)
        assert at < 0, text[max(0, at - 300) : at + 200]


@pytest.fixture
def port() -> Iterator[int]:
    server = stdlib_logging.getLogger("mail.log")  # the server lives in this process, and its logs are not ours
    server.disabled = True
    with serving(Refusing()) as port:
        yield port
    server.disabled = False


@pytest.fixture
def world(make_world: Callable[..., World], port: int) -> World:
    smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
    return make_world(
        transport={**smtp, "password": SMTP_PASSWORD}, slice_users=300, errors={"budget": "50%", "then": "report"}
    )


def log_text(folder: Path) -> str:
    files = [path for path in (folder / "var" / "logs").rglob("*") if path.is_file()]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def failing(world: World) -> Callable[..., Any]:
    """Return a decision with a bug that some users' data trigger; its error quotes the user's whole document."""
    decide: Callable[..., Any] = vars(evaluate)["decide"]

    def decide_or_not(campaign: Any, profile: Any, facts: Any, enrolment: Any, as_of: int) -> Any:
        if facts.row is not None and user_id_of(facts.row.key).endswith(("0017@x.example", "-0018")):
            document = world.app.stores.users.get(facts.row.key) or {}
            raise ValueError(f"cannot decide {document} of {document['email']}, {document['first_name']}")
        return decide(campaign, profile, facts, enrolment, as_of)

    return decide_or_not


def test_no_address_name_or_secret_is_in_any_log_or_output(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world = installation.world
    monkeypatch.chdir(installation.folder)
    for name, value in installation.env.items():
        monkeypatch.setenv(name, value)
    logs = logging.configure(
        logging.LogOptions(
            "run",
            installation.folder / "var" / "logs",
            level="debug",
            stdout=True,
            console=True,
            secrets=secrets(world.settings),
        ),
        clock=world.app.system,
    )
    try:
        (installation.folder / "users.csv").write_text(rows())
        assert run(["import", "users", "users.csv", "-w", "shop", "--max-rejects", "5%"]) == 0
        refused = {"user": {"$not": {"$regex": "(0021|0022)"}}}
        world.database.command("collMod", "enrolments", validator=refused)  # MongoDB's error quotes the document
        monkeypatch.setattr(evaluate, "decide", failing(world))
        body = "{{ user.first_name }} {{ user.note }} {{ 10 | divided_by: user.age }}"
        reachable = {"email": {"exists": True}}  # users can leave this audience: recipients are evaluated again
        world.apply({"campaign": "free-name", "audience": reachable, "messages": [{"name": "one", "body": body}]})
        world.launch("free-name")
        for _ in range(60):
            world.step()
            hurry(world.database)
        for command in ("campaign report free-name", "campaign list", "queue list", "clock show", "check --origin"):
            assert run(command.split()) == 0
    finally:
        world.database.command("collMod", "enrolments", validator={})
        logging.clear()
        logs.close()
    said = "".join(capfd.readouterr())
    text = log_text(installation.folder)
    for event in ("slice.failed", "slice.dead", "slice.split", "delivery.failed", "delivery.retried", "delivery.sent"):
        assert f'"{event}"' in text, event
    assert text.count('"delivery.') > USERS // 2
    clean(text)
    clean(said)
    assert said.count("delivery.") > USERS // 2, "it was all said on stdout too"
    for line in text.splitlines():
        if line.startswith("{"):
            json.loads(line)


def test_a_real_process_prints_and_logs_no_marked_data(installation: Installation, port: int) -> None:
    world = installation.world
    secret = installation.env["TIDEGATE_SERVICES__BROKER_URL"].replace("redis://", f"redis://default:{REDIS_PASSWORD}@")
    installation.env |= {
        "TIDEGATE_SERVICES__BROKER_URL": secret,
        "TIDEGATE_EMAIL__TRANSPORT": "smtp",
        "TIDEGATE_EMAIL__HOST": "127.0.0.1",
        "TIDEGATE_EMAIL__PORT": str(port),
        "TIDEGATE_EMAIL__STARTTLS": "off",
        "TIDEGATE_EMAIL__USERNAME": "app",
        "TIDEGATE_EMAIL__PASSWORD": SMTP_PASSWORD,
    }
    (installation.folder / "users.csv").write_text("\n".join(rows().splitlines()[:41]) + "\n")
    result = installation.call("import", "users", "users.csv", "-w", "shop")
    assert result.code == 0, result.err
    process = installation.running()
    world.apply({"campaign": "hello", "kind": "one_off", "messages": [{"name": "one", "body": "{{ user.note }}"}]})
    world.launch("hello")
    installation.until(lambda: len(installation.lines("delivery.retried")) >= 10, "the first attempts", process)
    assert installation.call("campaign", "report", "hello").code == 0
    assert installation.end(process, signal.SIGTERM) == 0
    clean(log_text(installation.folder))
    clean(installation.said() + result.out + result.err)


@pytest.fixture
def told_story(make_world: Callable[..., World], services: Any, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """A campaign that was sent while its logs were on."""
    world = make_world(slice_users=4, batch={"candidates": [2]})
    installation = Installation(world, services, {})
    folder = installation.folder / "var" / "logs"
    logs = logging.configure(logging.LogOptions("run", folder, stdout=False), clock=world.app.system)
    try:
        world.users([f"u{i}" for i in range(9)] + ["Sam@x.example"])
        world.start({"campaign": f"story-{world.database.name[-8:].replace('_', '-')}", "kind": "one_off"})
    finally:
        logs.close()
    monkeypatch.chdir(installation.folder)
    for name, value in installation.env.items():
        monkeypatch.setenv(name, value)
    return installation


def story_of(installation: Installation, user: str, capsys: pytest.CaptureFixture[str], *more: str) -> None:
    (record,) = installation.world.app.stores.campaigns.everything()
    capsys.readouterr()
    assert run(["logs", "search", f"campaign:{record.name} user:{user}", "--story", "--json", *more]) == 0
    lines = json.loads(capsys.readouterr().out)
    names = [line["event"]["action"] for line in lines]
    assert names.index("run.planned") < names.index("batch.decided") < names.index("delivery.sent")
    assert names.count("delivery.sent") == 1, "only this user's"
    sent = lines[names.index("delivery.sent")]
    chosen = [line for line in lines if line["labels"].get("slice") == sent["labels"]["slice"]]
    batches = [line for line in chosen if line["event"]["action"] == "batch.decided"]
    hidden = [line for line in batches if "~" in line["tidegate"]["first"] + line["tidegate"]["until"]]
    assert len(batches) - len(hidden) <= 1, "only the batch that held this user, and those whose bounds are hidden"
    planned = lines[names.index("run.planned")]
    assert sent["labels"]["run"] == planned["labels"]["run"] == batches[0]["labels"]["run"]
    assert sent["trace"] == planned["trace"] == batches[0]["trace"]


@pytest.mark.parametrize("user", ["u3", "Sam@x.example"])
def test_the_files_hold_the_whole_story_of_a_delivery(
    told_story: Installation, capsys: pytest.CaptureFixture[str], user: str
) -> None:
    story_of(told_story, user, capsys, "--files")


@pytest.mark.elastic
def test_elasticsearch_holds_the_whole_story_of_a_delivery(
    told_story: Installation, services: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES__ELASTIC_URL", services.elastic_url)
    assert run(["logs", "ship", "--once"]) == 0
    for user in ("u3", "Sam@x.example"):
        story_of(told_story, user, capsys)
    assert "reading the files" not in capsys.readouterr().err
