# SPDX-License-Identifier: Apache-2.0
"""Prompts of an exact length: token ids drawn as often as a text has them.

The k-th likeliest token of a text has about the share 1 / (k + 2.7) (Zipf and Mandelbrot), and byte-pair vocabularies
list frequent tokens first. What the ids are does not change how long a dense model takes; that prompts differ from
the first token on does where a server keeps what it has seen.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

#: Mandelbrot's shift of the rank.
SHIFT = 2.7


def draw(vocabulary: int, special: Collection[int], count: int, length: int, seed: int) -> list[list[int]]:
    """Return prompts, the same for the same arguments.

    Args:
        vocabulary: Ids are below it.
        special: Ids that are left out.
        count: Prompts.
        length: Tokens of each.
        seed: Of the draw.
    """
    ids = np.setdiff1d(np.arange(vocabulary), np.fromiter(special, dtype=np.int64, count=len(special)))
    weight = 1 / (np.arange(len(ids)) + SHIFT)
    drawn = np.random.default_rng(seed).choice(ids, size=(count, length), p=weight / weight.sum())
    rows: list[list[int]] = drawn.tolist()
    return rows
