# SPDX-License-Identifier: Apache-2.0
"""Suite `quick`: how far a model is from its baseline, token by token, on any text; core dependencies only.

    perplexity      exp of the mean negative log-likelihood, nats per predicted token
    bits_per_byte   bits of all predicted tokens per byte of text: comparable between tokenizers
    accuracy        share of tokens that the model holds likeliest and that come
    kl, kl_p999     KL(baseline ‖ model), nats per token: mean, and the value that 1 token in 1000 exceeds
    top1            share of tokens where both hold the same token likeliest
    gained, lost    tokens whose likeliest successor turned right, turned wrong; flips: their share of all

Logits are float32 (batch, length, vocabulary) of both models at once, in batches of 256 MiB; what is derived
from them is made in pieces of 64 MiB. A server gives no logits: perplexity and bits per byte alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pennyweight.errors import EvaluationError
from pennyweight.evaluate.in_process import InProcess
from pennyweight.evaluate.suites import Job, SuiteResult
from pennyweight.evaluate.text import Text, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pennyweight.evaluate.targets import Target

#: Bytes of log-probabilities that are derived at once.
PIECE_BYTES = 1 << 26
#: Rows that a server is asked for at once.
SERVER_ROWS = 64
SUMS = ("nll", "right", "kl", "same", "gained", "lost")


def run(job: Job) -> SuiteResult:
    """Measure a model on `options.data`."""
    tokenizer = job.target.tokenizer or (job.baseline.tokenizer if job.baseline else None)
    text = read_text(job.options.data, tokenizer, job.options.length, job.options.limit)
    notes = [f"text: {text.source}, {text.tokens} predicted tokens in {len(text.rows)} windows"]
    if isinstance(job.target, InProcess):
        job.target.check_ids(text.rows)
        if job.baseline is not None and not isinstance(job.baseline, InProcess):
            notes.append("the baseline is a server, which gives no logits: no KL, top-1 or flips")
    else:
        notes.append("a server gives no logits: no KL, top-1 or flips")
    if text.sizes is None:
        notes.append("no bits per byte: without the tokenizer no one knows the bytes of token ids")
    items = _items(job, text)
    return SuiteResult(summarize(items), items=[_without_tokens(item) for item in items], notes=notes)


def _items(job: Job, text: Text) -> list[dict[str, Any]]:
    """Return one item per window, those of an interrupted run from the store."""
    lengths = [len(row) for row in text.rows]
    if isinstance(job.target, InProcess):
        batches = list(job.target.batches(lengths, job.options.batch_size))
    else:
        batches = [
            list(range(i, min(i + SERVER_ROWS, len(lengths)))) for i in range(0, len(lengths), SERVER_ROWS)
        ]
    found: dict[int, dict[str, Any]] = {}
    for batch in batches:
        key = f"{batch[0]}+{len(batch)}"
        kept = job.store.get(key)
        if kept is None:
            items = measure(job.target, job.baseline, [text.rows[i] for i in batch])
            for item, index in zip(items, batch, strict=True):
                item |= {"id": f"window-{index}", "bytes": None if text.sizes is None else text.sizes[index]}
            kept = job.store.put(key, {"items": items})
        found.update(zip(batch, kept["items"], strict=True))
        job.progress(len(found), len(lengths))
    return [found[i] for i in range(len(lengths))]


@torch.inference_mode()
def measure(target: Target, baseline: Target | None, rows: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Measure rows of ids (length,) of one length (of any length on a server).

    Returns:
        Per row `tokens`, `score` (mean log-likelihood, nats per token), and sums over its predicted tokens: `nll` and,
        in this process, `right`; with a baseline in this process `kl`, `same`, `gained`, `lost`, and `kl_tokens`, each
        token's KL with 5 digits.
    """
    if not isinstance(target, InProcess):
        found = target.log_likelihoods([row.tolist() for row in rows])
        return [_item(len(row) - 1, {"nll": -one.double()}) for row, one in zip(rows, found, strict=True)]
    ids = torch.stack(list(rows))
    ours = target.logits(ids[:, :-1])
    theirs = baseline.logits(ids[:, :-1]) if isinstance(baseline, InProcess) else None
    if theirs is not None and theirs.shape != ours.shape:
        raise EvaluationError(
            f"{target.name}: has {ours.shape[-1]} logits per token, the baseline {theirs.shape[-1]}: their "
            "vocabularies differ; compare a model with the one it was made from"
        )
    return measure_logits(ours, theirs, ids[:, 1:])


def measure_logits(ours: Tensor, theirs: Tensor | None, targets: Tensor) -> list[dict[str, Any]]:
    """Do as `measure` with logits float32 (b, t, vocabulary), the baseline's or None, and the tokens to come (b, t)."""
    tokens = _tokens(ours, theirs, targets)
    return [
        _item(targets.shape[1], {name: values[i] for name, values in tokens.items()})
        for i in range(len(targets))
    ]


def summarize(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the suite's metrics from the items of `measure`; None for what they do not tell."""
    tokens = sum(item["tokens"] for item in items)
    sums: dict[str, float] = {n: sum(i[n] for i in items) for n in SUMS if all(n in i for i in items)}
    nll = sums["nll"]
    size = sum(item["bytes"] for item in items) if all(item.get("bytes") is not None for item in items) else 0
    result = {
        "tokens": tokens,
        "perplexity": _perplexity(nll / tokens),
        "bits_per_byte": nll / math.log(2) / size if size else None,
        "accuracy": sums["right"] / tokens if "right" in sums else None,
    }
    if "kl" not in sums:
        return result
    every = torch.tensor([kl for item in items for kl in item["kl_tokens"]], dtype=torch.float64)
    return result | {
        "kl": sums["kl"] / tokens,
        "kl_p999": float(every.kthvalue(math.ceil(0.999 * len(every))).values),
        "top1": sums["same"] / tokens,
        "flips": (sums["gained"] + sums["lost"]) / tokens,
        "gained": int(sums["gained"]),
        "lost": int(sums["lost"]),
    }


def _tokens(ours: Tensor, theirs: Tensor | None, targets: Tensor) -> dict[str, Tensor]:
    """Return what is measured of each token, float64 (b, t) on the CPU, from logits (b, t, vocabulary)."""
    piece = max(1, PIECE_BYTES // (4 * ours.shape[-1]))
    flat_ours = ours.flatten(0, 1).split(piece)
    flat_theirs = [None] * len(flat_ours) if theirs is None else theirs.flatten(0, 1).split(piece)
    flat_targets = targets.to(ours.device).flatten().split(piece)
    parts = [_piece(a, b, c) for a, b, c in zip(flat_ours, flat_theirs, flat_targets, strict=True)]
    return {
        name: torch.cat([part[name] for part in parts]).view(targets.shape).double().cpu()
        for name in parts[0]
    }


def _piece(ours: Tensor, theirs: Tensor | None, targets: Tensor) -> dict[str, Tensor]:
    log_q = ours.log_softmax(-1)  # (tokens, vocabulary)
    best = ours.argmax(-1)
    found = {"nll": -log_q.gather(-1, targets[:, None])[:, 0], "right": best == targets}
    if theirs is None:
        return found
    log_p = theirs.to(ours.device).log_softmax(-1)
    before = theirs.argmax(-1).to(ours.device)
    was = before == targets
    return found | {
        "kl": (log_p.exp() * (log_p - log_q)).sum(-1),
        "same": best == before,
        "gained": found["right"] & ~was,
        "lost": ~found["right"] & was,
    }


def _item(tokens: int, values: dict[str, Tensor]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: float(one.sum()) for name, one in values.items()}
    if "kl" in values:
        sums["kl_tokens"] = [float(f"{value:.5g}") for value in values["kl"].tolist()]
    return {"tokens": tokens, "score": -sums["nll"] / tokens, **sums}


def _without_tokens(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "kl_tokens"}


def _perplexity(nll: float) -> float | None:
    return math.exp(nll) if nll < 700 else None
