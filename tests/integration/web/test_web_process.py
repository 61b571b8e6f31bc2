"""`tidegate web` as a real process: the address, the stream of changes, two of them, a kill, who may be served."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from engine.domain.access import Role
from tests.support.installation import PATIENCE, Installation
from tests.support.web_pages import PASSWORD

SERVED = re.compile(r"tidegate web: (http://\S+)")


def served(installation: Installation, *, number: int = 1, arguments: tuple[str, ...] = ()) -> tuple[str, object]:
    """Start `tidegate web` on a free port; return its address, as it says it, and the process."""
    process = installation.start("web", "--port", "0", *arguments)
    found = installation.until(
        lambda: addresses if len(addresses := SERVED.findall(installation.said())) >= number else None, "web", process
    )
    return found[number - 1], process


@contextmanager
def events(url: str) -> Iterator[Iterator[dict[str, str]]]:
    """Yield the regions that a page's stream sends, event by event."""
    with httpx2.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        yield (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))


def test_an_open_page_is_told_what_changes(installation: Installation) -> None:
    world = installation.world
    world.users(["u1"])
    world.apply({"campaign": "winback"})
    url, _ = served(installation)
    with events(f"{url}/campaigns") as stream:
        assert "winback" in next(stream)["rows"]
        world.launch("winback")
        assert "scheduled" in next(event["rows"] for event in stream if "rows" in event)


def test_an_edit_of_the_policies_shows_within_seconds(installation: Installation) -> None:
    world = installation.world
    world.apply({"campaign": "winback"})
    url, _ = served(installation)
    page = f"{url}/w/shop/campaigns/winback"
    assert "weight" in httpx2.get(page, timeout=PATIENCE).text
    world.profile("default", weight=7, inactivity="11d")
    installation.until(lambda: "11d" in httpx2.get(page, timeout=PATIENCE).text, "the edited profile")


def test_two_processes_serve_and_a_kill_disturbs_nothing(installation: Installation) -> None:
    world = installation.world
    app = world.app
    app.access_control.add_password("ann", Role.OPERATE, PASSWORD, None, ())
    world.apply({"campaign": "winback"})
    first, _ = served(installation)
    second, _ = served(installation, number=2)
    with httpx2.Client(base_url=first, timeout=PATIENCE) as client:
        form = client.get("/login").text
        token = re.search(r'name="csrf" value="([^"]+)"', form)
        assert token
        fields = {"name": "ann", "password": PASSWORD, "csrf": token[1], "next": "/campaigns"}
        assert client.post("/login", data=fields, headers={"Origin": first}).status_code == 303
        cookie = client.cookies["tidegate_session"]
    other = httpx2.get(f"{second}/campaigns", headers={"Cookie": f"tidegate_session={cookie}"}, timeout=PATIENCE)
    assert other.status_code == 200, "a session holds in each process"
    port = int(second.rpartition(":")[2])
    [child] = [one for one in installation.family(installation._started[1]) if port in _ports(one)]
    child.send_signal(signal.SIGKILL)
    answer = httpx2.get(f"{first}/campaigns", headers={"Cookie": f"tidegate_session={cookie}"}, timeout=PATIENCE)
    assert answer.status_code == 200
    again = installation.until(
        lambda: addresses if len(addresses := SERVED.findall(installation.said())) > 2 else 0, "it"
    )
    revived = httpx2.get(f"{again[2]}/campaigns", headers={"Cookie": f"tidegate_session={cookie}"}, timeout=PATIENCE)
    assert revived.status_code == 200, "the killed one is back"


def _ports(process: object) -> set[int]:
    return {
        connection.laddr.port
        for connection in process.net_connections("tcp")  # type: ignore[attr-defined]
        if connection.status == "LISTEN"
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_signal_although_a_page_is_open(installation: Installation, number: int) -> None:
    url, process = served(installation)
    opened = threading.Event()

    def watch() -> None:
        with events(f"{url}/") as stream:
            for _ in stream:
                opened.set()

    watcher = threading.Thread(target=_quietly(watch))
    watcher.start()
    assert opened.wait(PATIENCE)
    assert installation.end(process, number) in (0, 130)  # type: ignore[arg-type]
    watcher.join(PATIENCE)
    assert not watcher.is_alive()


def _quietly(call):  # type: ignore[no-untyped-def]
    def run() -> None:
        try:
            call()
        except httpx2.HTTPError:
            return

    return run


def test_other_machines_are_not_served_before_an_access_is_configured(installation: Installation) -> None:
    refused = installation.call("web", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - refused
    assert refused.code == 1
    assert "no access is configured, so the pages are not served on 0.0.0.0" in refused.err
    assert "tidegate access add" in refused.err
    installation.world.app.access_control.add_token("bot", Role.READ, None, ())
    served(installation, arguments=("--host", "0.0.0.0"))  # noqa: S104 - with an access


def test_a_port_that_a_person_names_must_be_free(installation: Installation) -> None:
    url, _ = served(installation)
    taken = installation.call("web", "--port", url.rpartition(":")[2])
    assert taken.code == 1
    assert "Address already in use" in taken.err


def test_run_serves_the_pages_as_well(installation: Installation) -> None:
    installation.running()
    url = installation.until(lambda: re.search(r"the pages: (http://\S+)", installation.said()), "the pages")[1]
    assert httpx2.get(f"{url}/", timeout=PATIENCE).status_code == 200
    status = installation.until(
        lambda: told if "the pages: http" in (told := installation.call("status").out) else None, "status"
    )
    assert url in status
