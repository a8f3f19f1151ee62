# SPDX-License-Identifier: Apache-2.0
"""Prompts that a suite reads, and answers that models give to them, kept in the store as they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import datasets
from pennyweight.evaluate.needs import ARENA_HARD, Need
from pennyweight.evaluate.suites import Job, unknown
from pennyweight.evaluate.targets import Completion, Messages, Target

#: Prompts that are answered between two looks at the store.
BATCH = 16

#: Greedy answers of this process, by target: every model of a run is held against the same baseline.
_known: WeakKeyDictionary[Target, dict[str, str]] = WeakKeyDictionary()


def as_prompt(target: Target, text: str) -> str | Messages:
    """Return a question as a chat's first message, or as it is where the model has no chat template."""
    if target.tokenizer is not None and not getattr(target.tokenizer, "chat_template", None):
        return text
    return [{"role": "user", "content": text}]


def item_seed(seed: int, identity: str) -> int:
    """Return the seed of one item, the same whichever items are asked before it; below 2³¹ with room for samples."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{identity}".encode()).digest()[:4], "big") >> 2


def sample(
    job: Job, identity: str, text: str, *, samples: int, temperature: float, top_p: float = 1.0, max_new_tokens: int,
    stop: Sequence[str] = (),
) -> list[Completion]:  # fmt: skip
    """Return that many answers of the model to one question; seeded by `options.seed` and the item."""
    return job.target.generate(
        [as_prompt(job.target, text)], max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, n=samples,
        seed=item_seed(job.options.seed, identity), stop=stop,
    )[0]  # fmt: skip


def greedy(
    job: Job, target: Target, prompts: Mapping[str, str | Messages], *, role: str, max_new_tokens: int
) -> dict[str, str]:
    """Return the greedy answer of a model to each prompt, by the prompt's name.

    Args:
        job: Whose store and progress are used.
        target: The model that answers.
        prompts: By name: a text, or messages.
        role: "model" or "baseline": where in the store its answers are.
        max_new_tokens: At most so many tokens each.
    """
    known = _known.setdefault(target, {})
    digests = {name: _digest(prompt, max_new_tokens) for name, prompt in prompts.items()}
    for name in prompts:
        kept = job.store.get(f"{role}/{name}")
        if kept is not None:
            known[digests[name]] = kept["text"]
    missing = [name for name in prompts if digests[name] not in known]
    size = job.options.batch_size or BATCH
    for start in range(0, len(missing), size):
        batch = missing[start : start + size]
        asked = [as_prompt(target, p) if isinstance(p, str) else p for p in (prompts[name] for name in batch)]
        for name, found in zip(batch, target.generate(asked, max_new_tokens=max_new_tokens), strict=True):
            known[digests[name]] = found[0].text
            job.store.put(f"{role}/{name}", {"items": [], "text": found[0].text})
        job.progress(len(prompts) - len(missing) + start + len(batch), len(prompts))
    return {name: known[digests[name]] for name in prompts}


def read_prompts(job: Job) -> dict[str, str | Messages]:
    """Return the prompts of `options.prompts`, else Arena-Hard's questions, by name.

    Raises:
        EvaluationError: There are none, or a line has neither `prompt` nor `messages`.
    """
    if job.options.prompts is None:
        return dict(arena_questions(job))
    found: dict[str, str | Messages] = {}
    for number, row in enumerate(_lines(job.options.prompts), 1):
        prompt: Any = row.get("prompt", row.get("messages"))
        if not (isinstance(prompt, str) and prompt.strip()) and not _is_messages(prompt):
            raise EvaluationError(
                f"{job.options.prompts}: line {number} needs `prompt`, a text, or `messages`, objects with role and "
                "content"
            )
        found[str(row.get("id", number))] = prompt
    if not found:
        raise EvaluationError(f"{job.options.prompts}: has no prompts")
    return _limited(found, job)


def arena_questions(job: Job) -> dict[str, str]:
    """Return Arena-Hard's questions by their id; EvaluationError where the dataset is not there or not it."""
    found = {}
    for number, row in enumerate(datasets.read(job.options.datasets, ARENA_HARD, None, "question"), 1):
        turns = row.get("turns") or [None]
        first = turns[0] if isinstance(turns, list) else None
        text = row.get("prompt") or (first.get("content") if isinstance(first, Mapping) else first)
        name = row.get("question_id") or row.get("uid")
        if not isinstance(name, str) or not isinstance(text, str):
            raise EvaluationError(
                f"dataset 'arena-hard': question {number} needs question_id or uid, and turns or prompt; it has "
                f"{', '.join(row)}"
            )
        found[name] = text
    return _limited(found, job)


def chosen(suite: str, job: Job, tasks: Collection[str]) -> tuple[str, ...]:
    """Return the tasks of a suite that are asked for: all, unless `options.tasks` names some."""
    for name in job.options.tasks:
        if name not in tasks:
            raise EvaluationError(f"{suite}: {unknown('task', name, tasks)}")
    return job.options.tasks or tuple(tasks)


def read_rows(job: Job, need: Need, split: str, key: str) -> list[dict[str, Any]]:
    """Return the rows of a dataset, at most `options.limit`; EvaluationError where two have the same `key`."""
    rows = datasets.read(job.options.datasets, need, None, split)[: job.options.limit]
    names = [row[key] for row in rows if row.get(key) is not None]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise EvaluationError(
            f"dataset {need.name!r}: two rows of {split} have the {key} {twice!r}; keep one of each"
        )
    return rows


def _limited(prompts: dict[str, Any], job: Job) -> dict[str, Any]:
    return dict(list(prompts.items())[: job.options.limit])


def _is_messages(value: Any) -> bool:
    return bool(value) and isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    )  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a .jsonl file."""
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no object")
                rows.append(row)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise EvaluationError(f"{path}: is no .jsonl file: {error}") from None
    return rows


def _digest(prompt: str | Messages, max_new_tokens: int) -> str:
    return hashlib.sha256(json.dumps([prompt, max_new_tokens]).encode()).hexdigest()
