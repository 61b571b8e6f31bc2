"""Candidates of a pass: a tree of summaries that every access path can answer.

The tree holds for everybody who matches the predicate at `as_of`, and for some others: the decision checks each
candidate exactly. A pass that follows another one needs only the users whom time alone has let in since then (the
crossing sets); a changed user is evaluated because of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.clock import Instant
from engine.predicate.compile_elastic import elastic_answer
from engine.predicate.compile_mongo import Answer, mongo_answer
from engine.predicate.compile_python import Generator
from engine.predicate.crossings import crossings
from engine.predicate.relaxation import by_summary, relaxed
from engine.predicate.tree import EVERYBODY, NOBODY, Constant, Tree, all_of, any_of


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates at one `as_of`; immutable, and safe to share between threads.

    `exact` says that every user whom `living` returns matches, so that no user needs another check.
    """

    catalogue: Catalogue
    as_of: Instant
    tree: Tree
    exact: bool

    @property
    def nobody(self) -> bool:
        """Whether there can be no candidate, whatever the data."""
        return self.tree == NOBODY

    @property
    def everybody(self) -> bool:
        """Whether every user is a candidate, whatever the data."""
        return self.tree == EVERYBODY

    @cached_property
    def living(self) -> Callable[[Sequence[Row], Instant], list[Row]]:
        """`living(rows, as_of) -> rows`: the candidates among some rows, in their order."""
        return Generator(self.catalogue, {}).living(self.tree)

    def mongo(self) -> Answer:
        """Return the filter on `users`."""
        return mongo_answer(self.tree, self.as_of)

    def elastic(self) -> Answer:
        """Return the query on the users index."""
        return elastic_answer(self.tree, self.as_of)


def candidates(
    tree: Tree, catalogue: Catalogue, after: Instant | None, as_of: Instant, *, also: Sequence[Tree] = ()
) -> Candidates:
    """Return the candidates of a plain tree at `as_of`; with `after`, those whom time may have let in since then.

    `also` holds further plain trees (a goal that keeps users out) whose answer may flip by time.
    """
    widened, exact = relaxed(tree, by_summary)
    if after is not None:
        lines = [crossing for moving in (tree, *also) for crossing in crossings(moving, catalogue, after, as_of)]
        widened = all_of(widened, any_of(*(crossing.around for crossing in lines)))
    if isinstance(widened, Constant) and not widened.holds:
        widened = NOBODY
    return Candidates(catalogue, as_of, widened, exact)
