# SPDX-License-Identifier: Apache-2.0
"""Texts and conversations to rows of token ids.

    documents ──seeded shuffle──► tokens of each, one after the other ──cut──► windows ──seeded choice──► rows

Documents are taken until they fill the rows, where a long one counts for a single row: so a few huge files
do not crowd out the rest, and rows come from all over a document, not from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pennyweight.calibration.rows import DEFAULT_LENGTH, DEFAULT_SAMPLES, Calibration, check_counts
from pennyweight.errors import CalibrationError

Message = Mapping[str, Any]


def from_texts(
    texts: Iterable[str],
    tokenizer: Any,
    samples: int | None = None,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
    *,
    source: str = "texts",
) -> Calibration:
    """Tokenize texts and pack them into full rows.

    Args:
        texts: Any number of texts; empty ones are left out.
        tokenizer: The model's tokenizer (transformers); it adds what special tokens it adds.
        samples: Rows; by default 512, or as many as the texts fill.
        length: Tokens of a row.
        seed: Of the shuffle.
        source: The texts' name in messages and in the report.
    Raises:
        CalibrationError: No text, not enough for one row, or for an explicit number of `samples`.
    """
    documents = list(texts) if not isinstance(texts, str) else [texts]
    for index, text in enumerate(documents):
        if not isinstance(text, str):
            raise CalibrationError(
                f"calibration ({source}): item {index} must be a text; got {type(text).__name__}"
            )
    return _pack([text for text in documents if text], tokenizer, samples, length, seed, source)


def from_messages(
    conversations: Iterable[Sequence[Message]],
    tokenizer: Any,
    samples: int | None = None,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
    *,
    source: str = "messages",
) -> Calibration:
    """Write conversations out by the tokenizer's chat template and pack them into full rows.

    Each conversation is a list of {"role": ..., "content": ...}. Without a chat template the contents are
    joined by blank lines. Other arguments, result and errors as `from_texts`.
    """
    return from_dataset(
        ({"messages": c} for c in conversations), tokenizer, samples, length, seed, source=source
    )


def from_dataset(
    dataset: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    samples: int | None = None,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
    *,
    source: str = "dataset",
) -> Calibration:
    """Pack the rows of a dataset: `messages` where a row has them and the tokenizer has a chat template,
    else `text`.

    Args:
        dataset: A `datasets.Dataset`, or any iterable of mappings.
        Others, result and errors as `from_texts`.
    """
    templated = bool(getattr(tokenizer, "chat_template", None))
    documents = [_document(row, index, tokenizer, templated, source) for index, row in enumerate(dataset)]
    return _pack([text for text in documents if text], tokenizer, samples, length, seed, source)


class _Templated(str):
    """A text that holds its special tokens already."""


def _document(row: Any, index: int, tokenizer: Any, templated: bool, source: str) -> str:
    if not isinstance(row, Mapping) or not ("text" in row or "messages" in row):
        keys = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise CalibrationError(
            f"calibration ({source}): row {index} needs 'text' or 'messages'; it has: {keys}"
        )
    if "messages" in row and (templated or "text" not in row):
        messages = row["messages"]
        if not isinstance(messages, Sequence) or not all(
            isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in messages
        ):
            raise CalibrationError(
                f"calibration ({source}): row {index}: messages must be a list of role and content"
            )
        if templated:
            return _Templated(tokenizer.apply_chat_template(messages, tokenize=False))
        return "\n\n".join(m["content"] for m in messages)
    if not isinstance(row["text"], str):
        raise CalibrationError(f"calibration ({source}): row {index}: text must be a string")
    return str(row["text"])


def _pack(
    documents: list[str], tokenizer: Any, samples: int | None, length: int, seed: int, source: str
) -> Calibration:
    check_counts(samples, length)
    if not documents:
        raise CalibrationError(f"calibration ({source}): no text; give at least {length} tokens of it")
    generator = torch.Generator().manual_seed(seed)
    wanted = samples or DEFAULT_SAMPLES
    stream = _stream(documents, tokenizer, wanted, length, generator)
    rows = stream[: len(stream) // length * length].view(-1, length)
    if not len(rows) or (samples is not None and len(rows) < samples):
        raise CalibrationError(
            f"calibration ({source}): {len(stream)} tokens; {samples or 1} rows of {length} take "
            f"{(samples or 1) * length}; give more text, or fewer samples, or a smaller length"
        )
    chosen = torch.randperm(len(rows), generator=generator)[:wanted].sort().values
    return Calibration(rows[chosen].contiguous(), source)


def _stream(
    documents: list[str], tokenizer: Any, samples: int, length: int, generator: torch.Generator
) -> Tensor:
    pieces: list[Tensor] = []
    filled = 0
    for index in torch.randperm(len(documents), generator=generator).tolist():
        text = documents[index]
        ids = tokenizer(str(text), add_special_tokens=not isinstance(text, _Templated), verbose=False)[
            "input_ids"
        ]
        pieces.append(torch.tensor(ids, dtype=torch.int64))
        filled += min(len(ids), length)
        if filled >= samples * length:
            break
    return torch.cat(pieces)
