"""What an access of one workspace sees of the picture of the whole installation."""

from __future__ import annotations

from engine.domain.system_view import LaneNode, Level, StoreNode, SystemView, Times, Verdict
from engine.web.scoped_view import scoped

FINE = Verdict(Level.FINE)


def view() -> SystemView:
    """A picture that names campaigns of two workspaces wherever it can."""
    mine, theirs = Times(5, 1.0, 2.0, 3.0, 4.0, "shop/mine"), Times(5, 1.0, 2.0, 3.0, 4.0, "shop2/secret")
    lane = LaneNode("fast", "decide", 1, 0, 0, 0, 1, 0, None, 0.5, mine, theirs, 60.0, ("fast",), FINE)
    store = StoreNode("mongodb", "127.0.0.1", 0.001, 10.0, 0.0, theirs, FINE)
    return SystemView(
        at=5, lanes=(lane,), fleets=(), producers=(), stores=(store,), channels=(), edges=(), gate=None, verdict=FINE,
        campaigns={"live": 7},
    )  # fmt: skip


def test_an_access_of_all_workspaces_sees_the_whole_picture() -> None:
    assert scoped(view(), None) == view()


def test_an_access_of_one_workspace_sees_no_name_of_another() -> None:
    seen = scoped(view(), "shop")
    assert "secret" not in repr(seen)
    assert seen.lanes[0].waits.worst_campaign == "shop/mine"
    assert seen.lanes[0].works.worst == 4.0, "the figures stay"
    assert seen.campaigns == {}
