# SPDX-License-Identifier: Apache-2.0
"""Rows of token ids: what every source of calibration data comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pennyweight.errors import CalibrationError

DEFAULT_SAMPLES = 512
DEFAULT_LENGTH = 2048


@dataclass(frozen=True)
class Calibration:
    """Token ids to calibrate with.

    Attributes:
        ids: (n, length) int64, n and length at least 1, none negative.
        source: Where they came from, for messages and the report.
        random: Whether they were drawn at random.
    """

    ids: Tensor
    source: str
    random: bool = False

    def __post_init__(self) -> None:
        _check_ids(self.ids, self.source)

    def check_vocabulary(self, size: int) -> None:
        """Raise CalibrationError where an id is not below `size`."""
        if int(self.ids.max()) >= size:
            row, column = (self.ids >= size).nonzero()[0].tolist()
            raise CalibrationError(
                f"calibration ({self.source}): id {int(self.ids[row, column])} in row {row}, place {column} "
                f"is outside the model's vocabulary of {size}; use the ids of this model's own tokenizer"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return source, rows and length."""
        return {"source": self.source, "samples": self.ids.shape[0], "length": self.ids.shape[1]}


def from_ids(
    ids: Any, samples: int | None = None, length: int | None = None, *, source: str = "token ids"
) -> Calibration:
    """Use token ids as they are.

    Args:
        ids: (n, length), integers: a tensor, an array or a list of rows.
        samples: Exactly the first so many rows; by default the first 512, or all where there are fewer.
        length: Exactly the first so many ids of each row; by default all.
        source: Their name in messages and in the report.
    Raises:
        CalibrationError: No rows, negative or fractional ids, fewer rows than `samples`, rows shorter than
            `length`.
    """
    check_counts(samples, length)
    try:
        rows = torch.as_tensor(ids)
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"calibration ({source}): rows must be integers, all of one length: {error}"
        ) from None
    if not rows.is_floating_point() and rows.dtype != torch.bool:
        rows = rows.to("cpu", torch.int64)  # unsigned types know no comparison
    _check_ids(rows, source)
    count, width = rows.shape
    if samples is not None and count < samples:
        raise CalibrationError(
            f"calibration ({source}): {count} rows; {samples} were asked for; ask for at most {count}"
        )
    if length is not None and width < length:
        raise CalibrationError(
            f"calibration ({source}): rows of {width} ids; {length} were asked for; use length={width}"
        )
    chosen = rows[: samples or DEFAULT_SAMPLES, : length or width]
    return Calibration(chosen.contiguous(), source)


def random(
    vocab_size: int, samples: int = DEFAULT_SAMPLES, length: int = DEFAULT_LENGTH, seed: int = 0
) -> Calibration:
    """Draw ids uniformly from 0 .. vocab_size - 1, special tokens included."""
    check_counts(samples, length)
    if vocab_size < 1:
        raise CalibrationError(f"calibration (random): vocab_size must be at least 1; got {vocab_size}")
    generator = torch.Generator().manual_seed(seed)
    return Calibration(
        torch.randint(vocab_size, (samples, length), generator=generator), "random tokens", random=True
    )


def as_calibration(data: Any) -> Calibration:
    """Return a Calibration as it is; anything else is taken for token ids (n, length)."""
    return data if isinstance(data, Calibration) else from_ids(data)


def check_counts(samples: int | None, length: int | None) -> None:
    """Raise CalibrationError for a number of rows or a length below 1."""
    for name, value in (("samples", samples), ("length", length)):
        if value is not None and value < 1:
            raise CalibrationError(f"calibration: {name} must be at least 1; got {value}")


def _check_ids(ids: Tensor, source: str) -> None:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise CalibrationError(f"calibration ({source}): token ids must be integers; got {ids.dtype}")
    if ids.dim() != 2 or not ids.numel():
        raise CalibrationError(
            f"calibration ({source}): ids must be (rows, length), neither zero; got {list(ids.shape)}"
        )
    if int(ids.min()) < 0:
        row, column = (ids < 0).nonzero()[0].tolist()
        raise CalibrationError(
            f"calibration ({source}): id {int(ids[row, column])} at row {row}, position {column} "
            f"is negative; leave padding out: rows must be full"
        )
