# SPDX-License-Identifier: Apache-2.0
"""Results of benchmarks, made up: two formats, one use case, both modes."""

from __future__ import annotations

from typing import Any

from pennyweight.benchmark import results

Json = dict[str, Any]


def row(form: str, how: str, latency: float, throughput: float | None = None, **changes: Any) -> Json:
    """A row of rag at a tenth of its lengths."""
    sync = how == "sync"
    return {
        "format": form, "use_case": "rag", "mode": how, "prefill_tokens": 102, "decode_tokens": 13,
        "latency_s": latency, "throughput_qps": throughput, "ttft_s": latency / 4, "inter_token_s": latency / 16,
        "prefill_s": latency / 4 if sync else None, "decode_s": latency * 3 / 4 if sync else None,
        "output_tokens_per_s": 13 / latency if throughput is None else 13 * throughput, "gpu": "cpu", "gpus": 1,
        "usd_per_hour": 0.5, "queries_per_dollar": 7200 * (1 / latency if throughput is None else throughput),
        "repeats": 3, "spread": 0.02, "source": "in process", "partial": False, "points": [],
    } | changes  # fmt: skip


def point(kind: str, throughput: float, latency: float) -> Json:
    """A point of a sweep."""
    return {
        "kind": kind, "rate_qps": throughput if kind == "rate" else None, "throughput_qps": throughput,
        "latency_s": latency, "ttft_s": latency / 4, "inter_token_s": latency / 16, "requests": 8, "seconds": 4.0,
    }  # fmt: skip


def target(form: str, **changes: Any) -> Json:
    return {
        "format": form, "name": f"tiny-{form}", "kind": "folder", "source": f"/models/tiny-{form}", "scheme": form,
        "dtype": "bfloat16", "device": "cpu", "bytes": 1000, "hash": f"hash-of-{form}", "baseline": form == "BF16",
    } | changes  # fmt: skip


def result(**changes: Any) -> Json:
    """A whole result, sealed; `changes` replace its parts first."""
    curve = [point("synchronous", 0.5, 2.0), point("rate", 1.0, 2.5), point("throughput", 1.5, 5.0)]
    quick = [point("synchronous", 1.0, 1.0), point("rate", 2.0, 1.5), point("throughput", 3.0, 2.5)]
    return results.sealed({
        "pennyweight": "0.1.0", "versions": {"torch": "2.13.0"}, "seed": 7, "seconds": 12.5,
        "machine": {"name": "a CPU, 2 cores", "cpu": "a CPU", "cores": 2, "threads": 2, "memory_bytes": 1 << 34,
                    "cards": [], "gpu": "cpu", "gpus": 1},
        "model": {"name": "tiny", "parameters": 1000, "config": {"hidden_size": 64}},
        "settings": {"modes": ["sync", "async"], "use_cases": ["rag"], "scale": 0.1},
        "prices": {"source": "given by the user", "date": None, "usd_per_hour": 0.5},
        "targets": [target("BF16"), target("W4A16-INT")],
        "rows": [row("BF16", "sync", 2.0), row("W4A16-INT", "sync", 1.0),
                 row("BF16", "async", 5.0, 1.5, points=curve), row("W4A16-INT", "async", 2.5, 3.0, points=quick)],
        "notes": [], "partial": False,
    } | changes)  # fmt: skip
