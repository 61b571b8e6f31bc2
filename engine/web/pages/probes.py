"""`/livez` and `/readyz` for supervisors, `/metrics` for Prometheus."""

from __future__ import annotations

from typing import Final

from starlette.responses import PlainTextResponse, Response

from engine.pipeline.insight.readiness import answer, livez
from engine.telemetry.exposition import exposition
from engine.web.page import Call, Page, Reach


def live(call: Call) -> Response:
    """Say that this process lives; no store is asked."""
    status, text = livez(verbose="verbose" in call.request.query_params)
    return PlainTextResponse(text, status)


def ready(call: Call) -> Response:
    """Say whether this process can serve, with `?verbose` store by store."""
    verbose = "verbose" in call.request.query_params
    status, text = answer("readyz", call.app.readiness.checks(), verbose=verbose)
    return PlainTextResponse(text, status)


def metrics(call: Call) -> Response:
    """Return the metrics of the whole installation; read once for all scrapers of a second."""
    reading = call.site.metrics.latest()
    if reading.value is None:
        return PlainTextResponse(f"the metrics cannot be read: {reading.error}\n", 503)
    raw, kind = exposition(reading.value, call.request.headers.get("accept", ""))
    return Response(raw, headers={"Content-Type": kind})


PAGES: Final = (
    Page("/livez", live, Reach.PROBE),
    Page("/readyz", ready, Reach.PROBE),
    Page("/metrics", metrics, Reach.INSTALLATION),
)
