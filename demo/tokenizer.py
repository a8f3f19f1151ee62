# SPDX-License-Identifier: Apache-2.0
"""The demo's tokenizer: byte-level BPE trained on the training files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterable

VOCABULARY = 2048
SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
#: A line break takes the next line's indentation along; words take a space.
PATTERN = r"\n[ \n]*| ?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+|[ \t]+|\s"
CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _splitter() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_only])


def train_tokenizer(documents: Iterable[str], length: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on documents, for a model of `length` positions."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = _splitter()
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(documents, trainer)
    bos, eos, pad, start, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[start, end],
        chat_template=CHAT,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )
