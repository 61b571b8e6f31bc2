"""Read a folder of policies as a whole: list every mistake in every file; a set with a mistake is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel

from engine.errors import Fault, InvalidSource, Mark
from engine.folder_watcher import files_among
from engine.policy.models import RESERVED, LaneKind, Lanes, Profile, no_such
from engine.policy.policyset import DEFAULT, PolicySet
from engine.yamlfile.models import validate
from engine.yamlfile.nodes import Node, Steps, dotted, read

M = TypeVar("M", bound=BaseModel)

LANES_FILE: Final = "lanes.yaml"
PROFILES_FOLDER: Final = "profiles"


@dataclass(frozen=True, slots=True)
class _Read:
    """One profile with the document it was read from."""

    profile: Profile
    node: Node
    stem: str


def load_policies(folder: Path, *, edited: Path | None = None) -> PolicySet:
    """Read the policies of `folder` (`lanes.yaml` and `profiles/*.yaml`).

    `edited` is a file that is not saved there yet. It replaces the file of the same name (or is added, if it is a new
    profile). Marks show paths from the folder's name on, e.g. `policies/profiles/slow.yaml:14:9`, or the path of the
    edited file. Raises `InvalidSource` with every mistake of all files.
    """
    name = folder.name or "policies"
    faults = list(_strangers(folder, name))
    sources = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    shown = {inside: f"{name}/{inside}" for inside in sources}
    if edited is not None:
        inside = LANES_FILE if edited.name == LANES_FILE else f"{PROFILES_FOLDER}/{edited.name}"
        sources[inside], shown[inside] = edited, str(edited)
    lanes_path = sources.get(LANES_FILE, folder / LANES_FILE)
    lanes_node = _source(lanes_path, shown.get(LANES_FILE, f"{name}/{LANES_FILE}"), faults)
    lanes = _model(Lanes, lanes_node, faults)
    profiles: list[_Read] = []
    for inside in sorted(sources):
        if not inside.startswith(f"{PROFILES_FOLDER}/") or not inside.endswith(".yaml"):
            continue
        node = _source(sources[inside], shown[inside], faults)
        profile = _model(Profile, node, faults)
        if node is not None and profile is not None:
            profiles.append(_Read(profile, node, Path(inside).stem))
    if lanes is not None and lanes_node is not None:
        faults += lane_faults(lanes, lanes_node)
    for one in profiles:
        faults += _profile_faults(one, lanes)
    faults += _twins(profiles)
    if f"{PROFILES_FOLDER}/{DEFAULT}.yaml" not in sources:
        hint = "write profiles/default.yaml: it governs campaigns that no other profile matches"
        faults.append(Fault(Mark(f"{name}/{PROFILES_FOLDER}", 1, 1), "", f'there is no profile "{DEFAULT}"', hint))
    if faults or lanes is None:
        raise InvalidSource(faults)
    return PolicySet.of(lanes, {one.profile.profile: one.profile for one in profiles})


def files_of(folder: Path) -> list[Path]:
    """Return every file of the policies, in a fixed order, without the files that editors leave there."""
    return files_among([*folder.glob("*"), *(folder / PROFILES_FOLDER).glob("*")])


def lane_faults(lanes: Lanes, node: Node) -> list[Fault]:
    """Return the inconsistencies in `lanes.yaml`."""
    faults: list[Fault] = []

    def at(path: Steps, problem: str, hint: str = "") -> None:
        faults.append(Fault(node.find(*path).mark, dotted(path), problem, hint))

    served = {lane for fleet in lanes.fleets.values() for lane in fleet.lanes}
    for reserved in RESERVED:
        if reserved not in lanes.lanes:
            at(("lanes",), f'the lane "{reserved}" is missing; the engine needs it', f"add {reserved}: {{}}")
    for name in lanes.lanes:
        if name not in served:
            hint = f"add it to the lanes of a fleet: {', '.join(lanes.fleets)}"
            faults.append(Fault(node.key_mark("lanes", name), f"lanes.{name}", "no fleet serves this lane", hint))
    for kind in (LaneKind.DECIDE, LaneKind.DELIVER):
        if not any(lane.kind is kind for lane in lanes.lanes.values()):
            at(("lanes",), f"there is no lane of kind {kind}", f"give one lane kind: {kind}")
    return [*faults, *_fleet_faults(lanes, node), *_suspect_faults(lanes, node)]


def _fleet_faults(lanes: Lanes, node: Node) -> Iterator[Fault]:
    """Yield faults for fleets with missing or repeated lanes, or with too small a prefetch for their threads."""
    for name, fleet in lanes.fleets.items():
        for i, lane in enumerate(fleet.lanes):
            path: Steps = ("fleets", name, "lanes", i)
            if lane not in lanes.lanes:
                misfit = no_such("lane", lane, lanes.lanes)
                yield Fault(node.find(*path).mark, dotted(path), misfit.problem, misfit.suggestion)
            elif lane in fleet.lanes[:i]:
                yield Fault(node.find(*path).mark, dotted(path), f'"{lane}" is listed twice', "keep one")
        if fleet.prefetch is not None and fleet.prefetch < fleet.threads:
            path = ("fleets", name, "prefetch")
            problem = f"is below the fleet's {fleet.threads} threads, some would idle"
            yield Fault(node.find(*path).mark, dotted(path), problem, "raise it")


def _suspect_faults(lanes: Lanes, node: Node) -> Iterator[Fault]:
    """Check that the suspect lane has one process, one thread and no other lane.

    A process that dies there must have died of its own slice.
    """
    fleets = [(name, fleet) for name, fleet in lanes.fleets.items() if "suspect" in fleet.lanes]
    for name, fleet in fleets:
        path: Steps = ("fleets", name)
        if len(fleets) > 1:
            yield Fault(node.key_mark(*path), dotted(path), "the lane suspect is served by several fleets", "keep one")
        if len(fleet.lanes) > 1:
            place = node.find(*path, "lanes").mark
            yield Fault(place, f"fleets.{name}.lanes", "suspect must be alone in its fleet", "write lanes: [suspect]")
        for key, value in (("processes", fleet.processes), ("threads", fleet.threads)):
            if value != 1:
                hint = f"write {key}: 1" if key in _keys(node.find(*path)) else f"add {key}: 1"
                problem = f"the fleet of suspect has one process and one thread, got {value} {key}"
                yield Fault(node.find(*path, key).mark, dotted((*path, key)), problem, hint)


def _profile_faults(one: _Read, lanes: Lanes | None) -> list[Fault]:
    profile, node = one.profile, one.node
    faults: list[Fault] = []
    if profile.profile != one.stem:
        problem = f'the name differs from the file\'s, "{one.stem}"'
        faults.append(Fault(node.find("profile").mark, "profile", problem, f"write profile: {one.stem}"))
    if profile.profile == DEFAULT and profile.matches is not None:
        problem = "the default profile governs campaigns that no other profile matches"
        faults.append(Fault(node.key_mark("matches"), "matches", problem, "remove matches:"))
    if lanes is None:
        return faults
    for key, kind in (("lane", LaneKind.DECIDE), ("slow_lane", LaneKind.DECIDE), ("deliver_lane", LaneKind.DELIVER)):
        named = str(getattr(profile, key))
        mark = node.find(key).mark
        fitting = {name: lane for name, lane in lanes.lanes.items() if lane.kind is kind}
        if named not in lanes.lanes:
            misfit = no_such("lane", named, fitting)
            hint = misfit.suggestion if key in _keys(node) else f"add {key}: with one of {', '.join(fitting)}"
            faults.append(Fault(mark, key, misfit.problem, hint))
        elif fitting and named not in fitting:
            problem = f'the lane "{named}" is of kind {lanes.lanes[named].kind}, not {kind}'
            faults.append(Fault(mark, key, problem, f"one of: {', '.join(fitting)}"))
    return faults


def _twins(profiles: list[_Read]) -> Iterator[Fault]:
    """Yield a fault for two profiles with the same matches and priority: one of them would never govern a campaign."""
    seen: dict[str, str] = {}
    for one in profiles:
        if one.profile.matches is None:
            continue
        told = f"{one.profile.matches.model_dump_json()}{one.profile.priority}"
        if told in seen:
            problem = f'matches the same campaigns as the profile "{seen[told]}" at the same priority'
            yield Fault(one.node.key_mark("matches"), "matches", problem, "give one of them another priority:")
        seen.setdefault(told, one.profile.profile)


def _strangers(folder: Path, name: str) -> Iterator[Fault]:
    if not folder.is_dir():
        yield Fault(Mark(name, 1, 1), "", "there is no such folder", "run tidegate init, or set paths.policies")
        return
    for path in files_of(folder):
        inside = path.relative_to(folder).as_posix()
        if inside != LANES_FILE and not (path.parent.name == PROFILES_FOLDER and path.suffix == ".yaml"):
            hint = (
                f"rename it to {path.stem}.yaml" if path.suffix == ".yml" else f"only {LANES_FILE} and profiles/*.yaml"
            )
            yield Fault(Mark(f"{name}/{inside}", 1, 1), "", "this file is not read", hint)


def _source(path: Path, name: str, faults: list[Fault]) -> Node | None:
    try:
        return read(path, name=name)
    except InvalidSource as error:
        faults.extend(error.faults)
        return None


def _model(model: type[M], node: Node | None, faults: list[Fault]) -> M | None:
    if node is None:
        return None
    try:
        return validate(model, node, empty=False)
    except InvalidSource as error:
        faults.extend(error.faults)
        return None


def _keys(node: Node) -> Mapping[str, Node]:
    return node.value if isinstance(node.value, dict) else {}
