# SPDX-License-Identifier: Apache-2.0
"""Suite `similarity`: how much of the baseline's wording a model keeps, from greedy answers to the same prompts.

    rouge1, rougeL   F1 of words in common, of the longest common subsequence of words (rouge-score, no stemming)
    bertscore        F1 of greedily matched token embeddings of an encoder (bert-score, no idf, no rescaling)
    sts              cosine of sentence embeddings (sentence-transformers)
    identical        share of answers that are the same text

All 0 to 1, mean over prompts. The study: Arena-Hard's 500 prompts, RoBERTa-large, MiniLM; the variant of ROUGE, the
exact MiniLM and the longest answer are not published. Encoders are folders; without one its metric is not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pennyweight.errors import EvaluationError
from pennyweight.evaluate.answers import greedy, read_prompts
from pennyweight.evaluate.suites import Job, SuiteResult

MAX_NEW_TOKENS = 1024
#: Texts that an encoder reads at once.
ENCODED = 32
#: Tokens shown from the first divergence on.
SHOWN = 8
METRICS = ("rouge1", "rougeL", "bertscore", "sts")


def run(job: Job) -> SuiteResult:
    """Hold a model's greedy answers against its baseline's; of the baseline itself, keep the answers."""
    prompts = read_prompts(job)
    most = job.options.max_new_tokens or MAX_NEW_TOKENS
    notes = [f"{len(prompts)} prompts, greedy answers of at most {most} tokens"]
    for name in ("bertscore", "sts"):
        _check_encoder(name, getattr(job.options, f"{name}_model"))
    if job.baseline is None:
        answers = greedy(job, job.target, prompts, role="model", max_new_tokens=most)
        items: list[dict[str, Any]] = [
            {"id": name, "prompt": prompts[name], "model_text": text} for name, text in answers.items()
        ]
        return SuiteResult(
            {"prompts": len(prompts)}, items=items, notes=[*notes, "no baseline: answers only"]
        )
    theirs = greedy(job, job.baseline, prompts, role="baseline", max_new_tokens=most)
    ours = greedy(job, job.target, prompts, role="model", max_new_tokens=most)
    pairs = [(ours[name], theirs[name]) for name in prompts]
    scores = measure(pairs, job.options.bertscore_model, job.options.sts_model)
    notes += [
        f"{name} was not measured: it needs an encoder's folder, --{name}-model"
        for name in METRICS
        if name not in scores
    ]
    if job.options.bertscore_model is not None:
        notes.append(
            f"bertscore: layer {encoder_layer(job.options.bertscore_model)} of {job.options.bertscore_model.name}"
        )
    tokenizer = job.target.tokenizer or job.baseline.tokenizer
    items = [
        {
            "id": name, "prompt": prompts[name], "baseline_text": theirs[name], "model_text": ours[name],
            "first_divergence": first_divergence(ours[name], theirs[name], tokenizer),
            **{metric: values[i] for metric, values in scores.items()},
        }
        for i, name in enumerate(prompts)
    ]  # fmt: skip
    metrics: dict[str, Any] = {
        name: sum(scores[name]) / len(pairs) if name in scores else None for name in METRICS
    }
    metrics |= {"identical": sum(a == b for a, b in pairs) / len(pairs), "prompts": len(prompts)}
    return SuiteResult(metrics, items=items, notes=notes)


def measure(
    pairs: Sequence[tuple[str, str]], bertscore_model: Path | None = None, sts_model: Path | None = None
) -> dict[str, list[float]]:
    """Return each metric's value for every pair of (answer, the baseline's answer).

    Args:
        pairs: Texts.
        bertscore_model, sts_model: Folders of encoders; without one its metric is left out.
    """
    scores = rouge(pairs)
    if bertscore_model is not None:
        scores["bertscore"] = bertscore(pairs, bertscore_model)
    if sts_model is not None:
        scores["sts"] = sts(pairs, sts_model)
    return scores


def rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    """Return F1 of ROUGE-1 and ROUGE-L of each pair; two texts without a word in them are alike: 1."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rougeL")
    scorer = RougeScorer(list(names), use_stemmer=False)
    found = [scorer.score(theirs, ours) for ours, theirs in pairs]
    return {
        name: [
            1.0 if ours == theirs else float(one[name].fmeasure)
            for one, (ours, theirs) in zip(found, pairs, strict=True)
        ]
        for name in names
    }


def bertscore(pairs: Sequence[tuple[str, str]], encoder: Path) -> list[float]:
    """Return BERTScore's F1 of each pair, from the embeddings after `encoder_layer`; longer texts are cut.

    Args:
        pairs: Texts.
        encoder: Folder of a model of BERT's or RoBERTa's shape with its tokenizer.
    """
    from bert_score.utils import bert_cos_score_idf
    from transformers import AutoModel, AutoTokenizer

    tokenizer = _guarded(encoder, lambda: AutoTokenizer.from_pretrained(encoder, local_files_only=True))
    model = _guarded(encoder, lambda: AutoModel.from_pretrained(encoder, local_files_only=True).eval())
    if not hasattr(getattr(model, "encoder", None), "layer") or tokenizer.cls_token_id is None:
        raise EvaluationError(
            f"{encoder}: BERTScore needs an encoder such as RoBERTa; this is {type(model).__name__}"
        )
    model.encoder.layer = model.encoder.layer[: encoder_layer(encoder)]
    tokenizer.model_max_length = min(tokenizer.model_max_length, _longest(model))
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    weights |= {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0}
    # Nothing can match in an empty text, and bert-score cannot encode one with transformers 5.
    values = [float(a.strip() == b.strip()) for a, b in pairs]
    full = [i for i, (a, b) in enumerate(pairs) if a.strip() and b.strip()]
    if full:
        ours, theirs = [pairs[i][0] for i in full], [pairs[i][1] for i in full]
        with torch.inference_mode():
            found = bert_cos_score_idf(
                model, theirs, ours, tokenizer, weights, device="cpu", batch_size=ENCODED
            )
        for i, value in zip(full, found[:, 2].tolist(), strict=True):
            values[i] = value
    return values


def encoder_layer(encoder: Path) -> int:
    """Return the layer whose output BERTScore compares: the one that bert-score lists for a model of this name or, for
    RoBERTa-large (17) and RoBERTa-base (10), this shape; else the last.
    """
    from bert_score.utils import model2layers
    from transformers import AutoConfig

    config = _guarded(encoder, lambda: AutoConfig.from_pretrained(encoder, local_files_only=True))
    shape = (config.model_type, config.num_hidden_layers, config.hidden_size)
    known = {("roberta", 24, 1024): "roberta-large", ("roberta", 12, 768): "roberta-base"}
    return int(model2layers.get(known.get(shape, encoder.name), config.num_hidden_layers))


def sts(pairs: Sequence[tuple[str, str]], encoder: Path) -> list[float]:
    """Return the cosine of each pair's sentence embeddings; longer texts are cut."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import pairwise_cos_sim

    model = _guarded(encoder, lambda: SentenceTransformer(str(encoder), device="cpu", local_files_only=True))
    longest = _longest(model[0].auto_model)
    model.max_seq_length = min(model.max_seq_length or longest, longest)
    ours, theirs = (
        model.encode(list(side), batch_size=ENCODED, convert_to_tensor=True, show_progress_bar=False)
        for side in zip(*pairs, strict=True)
    )
    values: list[float] = pairwise_cos_sim(ours, theirs).tolist()
    return values


def first_divergence(ours: str, theirs: str, tokenizer: Any) -> dict[str, Any] | None:
    """Return where two answers part, or None where they are the same.

    Returns:
        character: How many characters they share from the start; token: how many tokens, None without one;
        model, baseline: what follows in each, the first tokens (or characters) of it.
    """
    if ours == theirs:
        return None
    at = _common(ours, theirs)
    if tokenizer is None:
        return {"character": at, "token": None, "model": ours[at : at + 40], "baseline": theirs[at : at + 40]}
    ids = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (ours, theirs)]
    token = _common(*ids)
    shown = [tokenizer.decode(one[token : token + SHOWN]) for one in ids]
    return {"character": at, "token": token, "model": shown[0], "baseline": shown[1]}


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return how many elements two sequences share from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _longest(model: Any) -> int:
    """Return how many tokens an encoder takes; RoBERTa's positions begin after its padding token's."""
    offset = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    return int(model.config.max_position_embeddings) - (0 if offset is None else int(offset) + 1)


def _check_encoder(metric: str, encoder: Path | None) -> None:
    if (
        encoder is not None
        and not (encoder / "config.json").is_file()
        and not (encoder / "modules.json").is_file()
    ):
        raise EvaluationError(
            f"similarity: {encoder} is no encoder, it has no config.json; --{metric}-model takes a folder that was "
            "downloaded before"
        )


def _guarded(encoder: Path, load: Callable[[], Any]) -> Any:
    """Load something of an encoder; what cannot be loaded is a sentence."""
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise EvaluationError(
            f"{encoder}: cannot be loaded as an encoder: {' '.join(str(error).split())[:300]}"
        ) from error
