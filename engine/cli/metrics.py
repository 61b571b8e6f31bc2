"""`tidegate metrics`: the metrics of the whole installation as text, and the files that watch over them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.context import opened, say
from engine.errors import WrongCall

FILES = "conf/observability"
RUNBOOKS = "docs/runbooks"


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate metrics | grep tidegate_up")(metrics)


def metrics(
    context: typer.Context,
    open_metrics: Annotated[
        bool, typer.Option("--open-metrics", help="OpenMetrics 1.0 instead of the Prometheus format 0.0.4.")
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option(
            "--files", metavar="FOLDER", help="Write alert rules, Grafana board and runbooks there instead of metrics."
        ),
    ] = None,
    runbooks: Annotated[
        str, typer.Option("--runbooks", metavar="URL", help="With --files: where the runbooks will be served.")
    ] = RUNBOOKS,
) -> None:
    """Print what `/metrics` serves: lanes, fleets, stores, deliveries, lateness, the gate, of the whole installation.

    A store that is away takes its metrics with it, and `tidegate_up{store=...}` is 0.
    """
    if files is not None:
        say(f"{write_files(files, runbooks.rstrip('/'))} files are in {files}")
        return
    from actors.broker.queue_views import watch_queues
    from engine.telemetry.exposition import OPEN_METRICS, exposition

    with opened(context) as app:
        watch_queues(app)
        text, _ = exposition(app.metrics.read(), OPEN_METRICS if open_metrics else "")
    sys.stdout.write(text.decode())


def write_files(folder: Path, runbooks: str = RUNBOOKS) -> int:
    """Write the files of `conf/observability` and the runbooks into a folder; return how many.

    Links to runbooks begin with `runbooks`. Raises `WrongCall` if one of the files is there already.
    """
    from engine.shipped import shipped_files

    texts = {name: file.read_text(encoding="utf-8") for name, file in shipped_files(FILES)}
    texts |= {f"runbooks/{name}": file.read_text(encoding="utf-8") for name, file in shipped_files(RUNBOOKS)}
    present = [name for name in texts if (folder / name).exists()]
    if present:
        raise WrongCall(f"{present[0]} exists in {folder} already", remedy="choose another folder, or remove it")
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(f"{RUNBOOKS}/", f"{runbooks}/"), encoding="utf-8")
    return len(texts)
