"""The loader reads a mangled file or refuses it with its faults; it never raises anything else."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.campaign.load import campaign_from_spec, load_campaign
from engine.catalogue.workspace_file import read_workspaces
from engine.errors import InvalidSource
from engine.policy.load import load_policies
from engine.settings import load_settings

ROOT = Path(__file__).parents[3]
POLICIES = load_policies(ROOT / "policies")
WORKSPACES = read_workspaces(ROOT / "examples" / "broken" / "workspaces")
CAMPAIGN = """\
campaign: winback
workspace: shop
kind: continuous
starts_at: 2026-12-01T08:00+01:00
profile: lifecycle
audience:
  all:
    - orders_count: {gte: 3}
  none:
    - event: {name: Coupon Redeemed, within: 30d}
entry: {again_after: 90d}
goal: {any: [{event: {name: Order Completed}}, {plan: pro}], within: 14d}
holdout: 10%
messages:
  - name: hello
    channel: email
    subject: "{{ user.first_name | default: 'Hello' }}"
    body: |
      {% if user.plan %}Hello{% endif %}
    wait: 3d
    was: none
"""
PIECES = st.sampled_from(
    [
        *string.punctuation,
        *(
            "\n",
            " ",
            "  - ",
            "null",
            "[]",
            "{}",
            "1e999",
            "-1",
            "9" * 30,
            "99999999d",
            "0s",
            "\x00",
            "\ud7ff",
            "{%",
            "}}",
        ),
        *("templates/good.html", "/", "..", "{% if %}", "{{ user }}", "{{ user[0] }}", "{{ user['a'] }}", "0001-01-01"),
    ]
)
CUTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def _mangled(text: str, cuts: list[tuple[int, int, str]]) -> str:
    for at, length, part in cuts:
        start = at % (len(text) + 1)
        text = text[:start] + part + text[start + length :]
    return text


def _write(folder: str, name: str, text: str) -> Path:
    path = Path(folder) / name
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def _refused_with_places() -> Iterator[None]:
    """Swallow a refusal if each of its faults has a place and a text."""
    try:
        yield
    except InvalidSource as error:
        if not all(fault.mark.line >= 1 and fault.mark.column >= 1 and fault.problem for fault in error.faults):
            raise


@settings(max_examples=60, deadline=None)
@given(CUTS)
def test_a_mangled_campaign_is_accepted_or_refused(cuts: list[tuple[int, int, str]]) -> None:
    with TemporaryDirectory() as folder:
        file = _write(folder, "campaign.yaml", _mangled(CAMPAIGN, cuts))
        with _refused_with_places():
            loaded = load_campaign(file, WORKSPACES, POLICIES)
            assert campaign_from_spec(loaded.spec, loaded.catalogue).file == loaded.file


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["lanes.yaml", "profiles/lifecycle.yaml"]), CUTS)
def test_a_mangled_policy_is_accepted_or_refused(name: str, cuts: list[tuple[int, int, str]]) -> None:
    text = (ROOT / "policies" / name).read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        edited = _write(folder, Path(name).name, _mangled(text, cuts))
        with _refused_with_places():
            policies = load_policies(ROOT / "policies", edited=edited)
            assert policies.from_plain(policies.plain()).version == policies.version


@settings(max_examples=30, deadline=None)
@given(CUTS)
def test_a_mangled_settings_file_is_accepted_or_refused(cuts: list[tuple[int, int, str]]) -> None:
    text = (ROOT / "conf" / "settings.yaml").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        file = _write(folder, "settings.yaml", _mangled(text, cuts))
        with _refused_with_places():
            assert load_settings(file, environment="default").origins()
