"""What people, editors and tools do to a watched folder while it is read: a table, on both kinds of watched folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest

from engine.catalogue.workspace_file import read_each
from engine.catalogue.workspace_set import WorkspaceSet, WorkspaceWatcher
from engine.errors import InvalidSource
from engine.folder_watcher import SETTLING, FolderWatcher, files_among, left_by_an_editor
from engine.policy.load import load_policies
from engine.policy.watch import PolicyWatcher

LANES: Final = """\
lanes: {control: {}, looks: {}, index: {}, suspect: {depth: 1}, fast: {}, slow: {}, deliver: {kind: deliver}}
fleets:
  all: {lanes: [control, looks, index, fast, slow, deliver]}
  suspect: {lanes: [suspect], threads: 1}
"""
OLD: Final = "profile: default\nlane: fast\ninactivity: 45d\n"
NEW: Final = "profile: default\nlane: fast\ninactivity: 30d\n"
SHOP: Final = "workspace: shop\nattributes:\n  plan: string\n"
SHOP_NEW: Final = "workspace: shop\nattributes:\n  plan: integer\n"


@dataclass
class Watched:
    """A folder with one file that is edited, and the watcher over it."""

    folder: Path
    path: Path
    old: str
    new: str
    watcher: FolderWatcher[Any]
    swaps: list[str] = field(default_factory=list)
    refused: list[InvalidSource] = field(default_factory=list)
    in_force: Callable[[], str] = str

    def follow(self) -> None:
        """Check as often as it takes until nothing changes any more."""
        for _ in range(3):
            self.watcher.check()


def _policies(folder: Path, settling: float = SETTLING) -> Watched:
    (folder / "profiles").mkdir(parents=True)
    (folder / "lanes.yaml").write_text(LANES)
    path = folder / "profiles/default.yaml"
    path.write_text(OLD)
    made = Watched(folder, path, OLD, NEW, None)  # type: ignore[arg-type]  # the watcher reports to it
    watcher = made.watcher = PolicyWatcher(
        folder,
        load_policies(folder),
        on_change=lambda new, _old: made.swaps.append(new.version),
        on_refused=made.refused.append,
        interval=0.01,
        settling=settling,
    )
    made.in_force = lambda: "new" if watcher.current.profiles["default"].inactivity.days == 30 else "old"
    return made


def _workspaces(folder: Path, settling: float = SETTLING) -> Watched:
    folder.mkdir(parents=True)
    path = folder / "shop.yaml"
    path.write_text(SHOP)
    made = Watched(folder, path, SHOP, SHOP_NEW, None)  # type: ignore[arg-type]  # the watcher reports to it
    watcher = made.watcher = WorkspaceWatcher(
        folder,
        WorkspaceSet(*read_each(folder)),
        on_change=lambda new, _old: made.swaps.append(new.version),
        on_refused=made.refused.append,
        interval=0.01,
        settling=settling,
    )
    made.in_force = lambda: "new" if watcher.current["shop"].fields["plan"].type.value == "integer" else "old"
    return made


@pytest.fixture(params=[_policies, _workspaces], ids=["policies", "workspaces"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Watched:
    """Return a watched folder of each kind, which hardly waits for it to rest."""
    made: Watched = request.param(tmp_path / "watched", settling=0.01)
    made.follow()
    return made


@pytest.fixture(params=[_policies, _workspaces], ids=["policies", "workspaces"])
def paced(request: pytest.FixtureRequest, tmp_path: Path) -> Watched:
    """Return a watched folder of each kind, with the waits of a running process."""
    made: Watched = request.param(tmp_path / "watched")
    made.watcher.look()
    return made


# -- the steps of the table: what is done to the folder -----------------------------------------------------------


def _swap_file(name: str) -> Callable[[Watched], None]:
    return lambda watched: (watched.path.parent / name.format(watched.path.name)).write_text("half of a fi")


def _lock_of_emacs(watched: Watched) -> None:
    watched.path.with_name(f".#{watched.path.name}").symlink_to("someone@host.1234:5678")


def _renamed_over(watched: Watched) -> None:
    beside = watched.path.with_name(".new")
    beside.write_text(watched.new)
    beside.replace(watched.path)


def _deleted_and_created(watched: Watched) -> None:
    watched.path.unlink()
    watched.path.write_text(watched.new)


def _backed_up_and_written(watched: Watched) -> None:
    """As vim does it with `backupcopy=no`."""
    (watched.path.parent / "4913").write_text("")
    (watched.path.parent / "4913").unlink()
    watched.path.rename(watched.path.with_name(f"{watched.path.name}~"))
    watched.path.write_text(watched.new)


def _folder_replaced(watched: Watched) -> None:
    beside = watched.folder.with_name("beside")
    shutil.copytree(watched.folder, beside)
    (beside / watched.path.relative_to(watched.folder)).write_text(watched.new)
    watched.folder.rename(watched.folder.with_name("old"))
    beside.rename(watched.folder)


def _clock_goes_back(watched: Watched) -> None:
    watched.path.write_text(watched.new)
    os.utime(watched.path, (1, 1))


def _same_size_and_time(watched: Watched) -> None:
    before = watched.path.stat()
    watched.path.write_text(watched.new.ljust(before.st_size))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _touched(watched: Watched) -> None:
    os.utime(watched.path, (1, 1))


def _emptied(watched: Watched) -> None:
    watched.path.write_text("")


def _cut(watched: Watched) -> None:
    watched.path.write_text(watched.new + "[")


def _not_utf8(watched: Watched) -> None:
    watched.path.write_bytes(watched.new.encode() + b"# caf\xe9\n")


def _nul_bytes(watched: Watched) -> None:
    """As a file system leaves it after a power cut."""
    watched.path.write_bytes(b"\0" * 40)


def _link_to_itself(watched: Watched) -> None:
    watched.path.unlink()
    watched.path.symlink_to(watched.path.name)


def _link_to_nothing(watched: Watched) -> None:
    watched.path.unlink()
    watched.path.symlink_to("nothing")


def _folder_gone(watched: Watched) -> None:
    shutil.rmtree(watched.folder)


def _unreadable(watched: Watched) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    watched.path.chmod(0)


TABLE: Final[list[tuple[str, Callable[[Watched], None], str, str]]] = [
    # what happens, the step, which set is in force then, and a part of the refusal
    ("vim's swap file", _swap_file(".{}.swp"), "old", ""),
    ("a swap file without a dot", _swap_file("{}.swp"), "old", ""),
    ("vim's test file", _swap_file("4913"), "old", ""),
    ("a backup", _swap_file("{}~"), "old", ""),
    ("emacs' auto-save", _swap_file("#{}#"), "old", ""),
    ("emacs' lock, a link to nothing", _lock_of_emacs, "old", ""),
    ("JetBrains' new file", _swap_file("{}___jb_tmp___"), "old", ""),
    ("JetBrains' old file", _swap_file("{}___jb_old___"), "old", ""),
    ("a temporary file", _swap_file("{}.tmp"), "old", ""),
    ("the file of sed -i", _swap_file("sedAb12Cd"), "old", ""),
    ("a rejected patch", _swap_file("{}.rej"), "old", ""),
    ("a touched file", _touched, "old", ""),
    ("renamed over", _renamed_over, "new", ""),
    ("deleted and created", _deleted_and_created, "new", ""),
    ("backed up and written", _backed_up_and_written, "new", ""),
    ("the folder is replaced", _folder_replaced, "new", ""),
    ("its time goes back", _clock_goes_back, "new", ""),
    ("same time and size", _same_size_and_time, "new", ""),
    ("an empty file", _emptied, "old", "the document is empty"),
    ("a cut file", _cut, "old", "not valid YAML"),
    ("another encoding", _not_utf8, "old", "is not UTF-8"),
    ("NUL bytes", _nul_bytes, "old", "not valid YAML"),
    ("a link to itself", _link_to_itself, "old", "cannot be read"),
    ("a link to nothing", _link_to_nothing, "old", "cannot be read"),
    ("the folder is gone", _folder_gone, "old", "there is no"),
    ("no right to read", _unreadable, "old", "cannot be read"),
]


@pytest.mark.parametrize(("step", "in_force", "refusal"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_hostile_edit_leaves_the_right_set_in_force(
    watched: Watched, step: Callable[[Watched], None], in_force: str, refusal: str
) -> None:
    step(watched)
    watched.follow()
    assert watched.in_force() == in_force
    assert len(watched.swaps) == (in_force == "new")
    assert [refusal in str(error) for error in watched.refused] == ([True] if refusal else [])


def test_a_mended_folder_is_in_force_after_each_hostile_edit(watched: Watched) -> None:
    for step in (_emptied, _cut, _not_utf8, _nul_bytes):
        step(watched)
        watched.follow()
    watched.path.write_text(watched.new)
    watched.follow()
    assert (watched.in_force(), watched.watcher.refusal) == ("new", None)


def test_half_of_a_file_that_is_valid_by_itself_never_comes_into_force(tmp_path: Path) -> None:
    """A profile without its last lines is valid, and has defaults where the lines are missing."""
    watched = _policies(tmp_path / "watched")
    watched.path.write_text("profile: default\nlane: fast\ninactivity: 10d\nin_flight: 2\n")
    watched.follow()
    del watched.swaps[:]
    watched.path.write_text("profile: default\nlane: fast\n")
    rest = Thread(target=_append_later, args=(watched.path, "inactivity: 30d\nin_flight: 2\n"))
    rest.start()
    watched.watcher.check()
    rest.join()
    watched.follow()
    assert len(watched.swaps) == 1
    assert watched.watcher.current.profiles["default"].in_flight == 2


def _append_later(path: Path, text: str) -> None:
    Event().wait(0.05)
    with path.open("a") as file:
        file.write(text)


def test_fifty_saves_in_a_second_end_in_one_swap_to_the_last(paced: Watched) -> None:
    def save() -> None:
        pause = Event()
        for number in range(50):
            paced.path.write_text(f"# {number}\n{paced.old}" if number < 49 else paced.new)
            pause.wait(0.02)

    saving = Thread(target=save)
    paced.watcher.start()
    saving.start()
    saving.join()
    _until(lambda: paced.in_force() == "new")
    paced.watcher.stop()
    assert len(paced.swaps) == 1
    assert paced.refused == []


def test_a_file_that_never_rests_is_read_nevertheless(paced: Watched) -> None:
    """A program that writes it all the time must not keep an edit out of force."""
    over = Event()

    def grow() -> None:
        text = paced.new
        while not over.wait(0.05):
            text += "# more\n"
            beside = paced.path.with_name(".beside")
            beside.write_text(text)
            beside.replace(paced.path)

    growing = Thread(target=grow)
    growing.start()
    paced.watcher.start()
    try:
        _until(lambda: paced.in_force() == "new")
    finally:
        over.set()
        growing.join()
        paced.watcher.stop()
    assert len(paced.swaps) == 1, "comments are no change"


def test_a_swapped_config_map_is_in_force_as_a_whole(watched: Watched) -> None:
    """Kubernetes swaps the link `..data`; files and folders are links through it."""
    inside = watched.path.relative_to(watched.folder)
    first = watched.folder / "..2026_12_01_08_00"
    first.mkdir()
    for entry in sorted(watched.folder.iterdir()):
        if not entry.name.startswith("."):
            entry.rename(first / entry.name)
    (watched.folder / "..data").symlink_to(first.name)
    for entry in sorted(first.iterdir()):
        (watched.folder / entry.name).symlink_to(f"..data/{entry.name}")
    watched.follow()
    assert (watched.in_force(), watched.swaps, watched.refused) == ("old", [], [])

    second = watched.folder / "..2026_12_01_09_00"
    shutil.copytree(first, second)
    (second / inside).write_text(watched.new)
    (watched.folder / "..data_tmp").symlink_to(second.name)
    (watched.folder / "..data_tmp").replace(watched.folder / "..data")
    shutil.rmtree(first)
    watched.follow()
    assert (watched.in_force(), len(watched.swaps), watched.refused) == ("new", 1, [])


def test_a_profiles_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    watched = _policies(tmp_path / "watched")
    (watched.folder / "profiles").rename(tmp_path / "elsewhere")
    (watched.folder / "profiles").symlink_to(tmp_path / "elsewhere")
    watched.path.write_text(watched.new)
    watched.follow()
    assert watched.in_force() == "new"


def test_a_link_to_nothing_counts_as_a_file_and_a_folder_does_not(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to("nothing")
    (tmp_path / "file.yaml").write_text("")
    assert [path.name for path in files_among(tmp_path.glob("*"))] == ["file.yaml", "link.yaml"]


@pytest.mark.parametrize("name", ["lanes.yaml", "slow.yml", "4913.yaml", "notes.txt", "sedation.yaml"])
def test_files_that_people_write_are_not_taken_for_an_editors(name: str) -> None:
    assert not left_by_an_editor(Path(name))


def _until(fact: Callable[[], bool]) -> None:
    pause = Event()
    for _ in range(1_000):
        if fact():
            return
        pause.wait(0.02)
    raise AssertionError("it never came into force")
