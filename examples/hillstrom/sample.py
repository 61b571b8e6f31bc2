"""`python -m examples.hillstrom.sample FILE`: a small file of the same shape, made up, with the counts that one wants.

The public file is not part of this repository; the tests run on such a sample.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from examples.hillstrom.data import ARMS, COLUMNS, Figures

PLANTED: Final[Mapping[str, Figures]] = {
    "mens": Figures(213, 39, 5),
    "womens": Figures(214, 32, 4),
    "control": Figures(213, 23, 2),
}
"""About a hundredth of the public file."""


def write_sample(file: Path, planted: Mapping[str, Figures] = PLANTED, seed: int = 7) -> None:
    """Write a file with exactly these figures by arm, in an order that follows from `seed`."""
    draw = random.Random(seed)
    rows: list[dict[str, object]] = []
    for arm, figures in planted.items():
        for number in range(figures.entered):
            bought = number < figures.conversions  # who buys has visited
            rows.append(
                {
                    "recency": draw.randint(1, 12),
                    "history_segment": draw.choice(["1) $0 - $100", "2) $100 - $200", "7) $1,000 +"]),
                    "history": f"{draw.uniform(29.99, 3345.93):.2f}",
                    "mens": draw.randint(0, 1),
                    "womens": draw.randint(0, 1),
                    "zip_code": draw.choice(["Urban", "Surburban", "Rural"]),
                    "newbie": draw.randint(0, 1),
                    "channel": draw.choice(["Phone", "Web", "Multichannel"]),
                    "segment": ARMS[arm],
                    "visit": int(number < figures.visits),
                    "conversion": int(bought),
                    "spend": f"{draw.uniform(29.99, 499):.2f}" if bought else "0",
                }
            )
    draw.shuffle(rows)
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]))
