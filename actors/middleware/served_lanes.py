"""Makes a worker serve exactly the lanes it was given, and only declared ones (docs/broker.md, rows 12 and 15)."""

from __future__ import annotations

import difflib

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from actors.middleware.refused import Refused


class ServedLanes(Middleware):
    """Refuses to start a worker that has no list of lanes (it would serve every queue) or lists an undeclared one."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Check the worker's lanes. Raises `Refused`; the process then ends with a code other than 0."""
        if not worker.consumer_whitelist:
            raise Refused("this worker was given no lanes, so it would serve every queue", remedy="Name them with -Q.")
        known = sorted(broker.get_declared_queues())
        for lane in sorted(worker.consumer_whitelist - set(known)):
            near = difflib.get_close_matches(lane, known, 1)
            raise Refused(
                f"no lane is called {lane!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
                remedy=f"Lanes: {', '.join(known) or 'none is declared'}.",
            )
