"""Watch a folder of policies: replace the whole set when it is valid; report an invalid one and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.errors import InvalidSource
from engine.folder_watcher import INTERVAL, SETTLING, FolderWatcher
from engine.policy.load import files_of, load_policies
from engine.policy.policyset import PolicySet

__all__ = ["INTERVAL", "PolicyWatcher"]


class PolicyWatcher(FolderWatcher[PolicySet]):
    """Holds the current `PolicySet` of a folder; see `FolderWatcher`."""

    def __init__(
        self,
        folder: Path,
        initial: PolicySet,
        *,
        on_change: Callable[[PolicySet, PolicySet], None],
        on_refused: Callable[[InvalidSource], None],
        on_valid: Callable[[], None] = lambda: None,
        interval: float = INTERVAL,
        settling: float = SETTLING,
    ) -> None:
        super().__init__(
            folder,
            initial,
            files=files_of,
            load=load_policies,
            version=lambda policies: policies.version,
            on_change=on_change,
            on_refused=on_refused,
            on_valid=on_valid,
            interval=interval,
            settling=settling,
            name="policy-watcher",
        )
