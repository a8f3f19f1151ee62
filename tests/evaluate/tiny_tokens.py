# SPDX-License-Identifier: Apache-2.0
"""A tokenizer for the tiny models."""

from __future__ import annotations

from typing import Any

#: Words of the tiny tokenizer: one token each.
WORDS = [f"w{i}" for i in range(256)]


def tiny_tokenizer(words: list[str] = WORDS) -> Any:
    """A tokenizer whose tokens are words between blanks."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
