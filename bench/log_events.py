"""The log lines of an installation, as its files hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bench.installation import Installation


def log_events(
    installation: Installation, *names: str, process: str = "*"
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Yield the complete log lines of some events: name, time (seconds since the epoch), and the line.

    `process` is the type of the processes that wrote them, e.g. `fast`; by default all.
    """
    for file in sorted((installation.folder / "var/logs").glob(f"{process}-*.ndjson")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.endswith("}") and any(name in line for name in names):
                told = json.loads(line)
                if told["event"]["action"] in names:
                    at = datetime.fromisoformat(told["@timestamp"]).timestamp()
                    yield told["event"]["action"], at, told
