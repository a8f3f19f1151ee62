# SPDX-License-Identifier: Apache-2.0
"""A Llama-3.1-8B with random weights on a card: prefill of a prompt, and decode of one token from a captured graph."""

from __future__ import annotations

import copy
import inspect
import statistics
from typing import Any

import torch

import pennyweight as pw
from card.timing import elapsed_ms, graph_of
from results import Row

MODEL = "llama-3.1-8b-random"
SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
FORMATS = {
    "W8A8-FP": pw.Recipe("W8A8-FP"),
    "W8A8-INT": pw.Recipe("W8A8-INT", algorithm="rtn"),
    "W4A16-INT": pw.Recipe("W4A16-INT", algorithm="rtn", observer="minmax"),
}
#: What logits may be off by against bfloat16, relative (Euclidean norms).
MOST_ERROR = {"W8A8-INT": 0.15, "W8A8-FP": 0.3, "W4A16-INT": 0.6}


def build(shape: dict[str, int]) -> Any:
    """The model in bfloat16 on the card."""
    from transformers import LlamaConfig, LlamaForCausalLM

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    finally:
        torch.set_default_dtype(before)


class Side:
    """A model with a cache of fixed size, as a captured graph needs."""

    def __init__(self, model: Any, context: int) -> None:
        from transformers import StaticCache

        self.model, self.context = model, context
        known = {"config": model.config, "max_cache_len": context + 16, "max_batch_size": 1, "device": "cuda",
                 "dtype": torch.bfloat16}  # fmt: skip
        takes = inspect.signature(StaticCache.__init__).parameters
        self.cache = StaticCache(**{name: value for name, value in known.items() if name in takes})
        self.ids = torch.arange(context, device="cuda")[None] * 7919 % model.config.vocab_size
        self.token = self.ids[:, :1].clone()
        self.place = torch.tensor([context], device="cuda")

    @torch.no_grad()
    def prefill(self) -> Any:
        """Logits of the prompt's last token."""
        places = torch.arange(self.context, device="cuda")
        options = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1}
        return self.model(input_ids=self.ids, cache_position=places, **options).logits

    @torch.no_grad()
    def decode(self) -> Any:
        """Logits of one more token, always at the same place."""
        options = {"position_ids": self.place[None], "past_key_values": self.cache, "use_cache": True}
        return self.model(input_ids=self.token, cache_position=self.place, **options).logits


def measure(rounds: int = 30, context: int = 512, shape: dict[str, int] | None = None) -> list[Row]:
    """Time the model in bfloat16 and in every format, fused."""
    plain = build(shape or SHAPE)
    exact = Side(plain, context).prefill()
    rows = [_timed(Side(plain, context), "torch", "bf16", 0.0, rounds)]
    for name, recipe in FORMATS.items():
        model = copy.deepcopy(plain)
        pw.quantize(model, recipe, progress=False, fuse=True)
        side = Side(model, context)
        error = float((side.prefill() - exact).float().norm() / exact.float().norm())
        if not error <= MOST_ERROR[name]:
            raise SystemExit(
                f"{name}: logits are off by {error:.3g}, at most {MOST_ERROR[name]}; it was not timed"
            )
        rows.append(_timed(side, "pennyweight", name, error, rounds))
        del model, side
        torch.cuda.empty_cache()
    for row in rows:
        row["decode_vs_bf16"] = row["decode_tok_s"] / rows[0]["decode_tok_s"]
        row["prefill_vs_bf16"] = row["prefill_tok_s"] / rows[0]["prefill_tok_s"]
        print(f"{row['side']:<12}{row['format']:<10} prefill {row['prefill_tok_s']:>9.0f} tok/s "
              f"{row['prefill_vs_bf16']:.2f}x, decode {row['decode_tok_s']:>7.1f} tok/s {row['decode_vs_bf16']:.2f}x"
              f" {'from a graph' if row['graph'] else 'WITHOUT a graph: ' + row['no_graph']}", flush=True)  # fmt: skip
    return rows


def _timed(side: Side, name: str, form: str, error: float, rounds: int) -> Row:
    side.prefill()
    prompt = statistics.median(elapsed_ms(side.prefill) for _ in range(5))
    row: Row = {"model": MODEL, "side": name, "format": form, "context_tokens": side.context, "error": error}
    try:
        step, row["graph"] = graph_of(side.decode), True
    except RuntimeError as why:  # something of the model waits for the card
        step, row["graph"], row["no_graph"] = side.decode, False, str(why).splitlines()[0]
    token = statistics.median(elapsed_ms(step) for _ in range(rounds))
    return {**row, "prefill_tok_s": side.context / prompt * 1e3, "decode_tok_s": 1e3 / token}
