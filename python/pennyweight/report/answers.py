# SPDX-License-Identifier: Apache-2.0
"""Answers of a model and of its baseline side by side, from where they part."""

from __future__ import annotations

import re
from typing import Any

from pennyweight.report.markup import escape, missing
from pennyweight.report.runs import Json, Runs

#: Pairs of answers that are shown of each model, those that part first.
SHOWN = 6


def answers(runs: Runs) -> str:
    """Return for each model how many answers changed, and those that part first."""
    text = []
    for result in runs.evaluations:
        items = [
            item for suite in result["suites"].values() for item in suite["items"]
            if isinstance(item.get("baseline_text"), str) and isinstance(item.get("model_text"), str)
        ]  # fmt: skip
        apart = sorted((i for i in items if i["baseline_text"] != i["model_text"]), key=_common)
        if not items:
            continue
        same = len(items) - len(apart)
        text.append(f"<h3>{escape(result['model']['name'])}</h3><p>{same} of {len(items)} answers are the same text"
                    + (f"; the {SHOWN} that part first:" if len(apart) > SHOWN else ".") + "</p>")  # fmt: skip
        text += [_pair(item) for item in apart[:SHOWN]]
    if not text:
        return missing(
            "No run has answers side by side",
            "pennyweight evaluate ... --suite similarity --prompts FILE.jsonl",
        )
    return "".join(text)


def _common(item: Json) -> int:
    ours, theirs = item["model_text"], item["baseline_text"]
    return next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )


def _pair(item: Json) -> str:
    at, parting = _common(item), item.get("first_divergence") or {}
    prompt: Any = item.get("prompt", item.get("id", ""))
    shown = prompt if isinstance(prompt, str) else " ".join(str(m.get("content", "")) for m in prompt)
    where = (
        f"part at token {parting['token']}" if parting.get("token") is not None else f"part at character {at}"
    )
    sides = [
        f"<div><b>{name}</b><pre>{_marked(item[key], at)}</pre></div>"
        for name, key in (("baseline", "baseline_text"), ("quantized", "model_text"))
    ]
    return (
        f'<div class="pair"><p><b>{escape(shown[:400])}</b> <span class="dim">{where}</span></p>'
        f'<div class="sides">{"".join(sides)}</div></div>'
    )


def _marked(text: str, at: int) -> str:
    """The common start dimmed, the first word that differs marked."""
    word = re.match(r"\s*\S*", text[at:])
    end = at + (len(word[0]) if word else 0)
    differs = escape(text[at:end]) or "(end)"
    return f'<span class="same">{escape(text[:at])}</span><mark>{differs}</mark>{escape(text[end:])}'
