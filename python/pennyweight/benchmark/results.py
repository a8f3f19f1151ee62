# SPDX-License-Identifier: Apache-2.0
"""The JSON of a run of `benchmark`: one file, written whole, read strictly.

    schema, kind            1, "benchmark"
    pennyweight, versions   of this package, Python, torch, transformers, ...
    machine                 name, cpu, cores, threads, memory_bytes, cards; gpu: the name that prices have ("cpu": no
                            cards, null: of a server, not said); gpus: how many of them, 1 where there are no cards
    model                   whose formats they are: name, parameters, config (transformers' main words), or null
    seed, settings          modes, use_cases, scale, repeats, requests, rates, fuse, ...
    prices                  source, date, usd_per_hour; null: none
    targets                 what was measured: format, name, kind ("folder", "object", "random", "made" of one of these
                            in memory, "server", "guidellm"),
                            source, scheme, dtype, device, bytes, hash, baseline (bool: others are held against it)
    rows                    one for each format, use case and mode, see below
    notes, partial, seconds
    sha256                  of all the rest, so that a file changed by hand is not taken for a measurement

A row:

    format, use_case        "W4A16-INT", "rag"
    mode                    "sync": one query at a time; "async": many at once
    prefill_tokens, decode_tokens
    latency_s               sync: from end to end, median; async: median of the queries at the maximum throughput
    throughput_qps          async: maximum, queries per second; sync: null
    ttft_s, inter_token_s   time to first token; mean time between tokens after it (null: one token); medians
    prefill_s, decode_s     sync: up to the first token, and after it
    output_tokens_per_s     decode_tokens / latency_s, or decode_tokens · throughput_qps
    gpu, gpus               as of the machine
    usd_per_hour            for all GPUs; null: no price
    queries_per_dollar      null: no price
    repeats, spread         measurements behind the row; half the distance of the quartiles of latency_s (sync) or
                            throughput_qps (async) as a share of the median, null for less than two
    source                  "in process", "server" or "guidellm"
    partial                 the run was stopped before all of the row's measurements were made
    points                  async: from one query at a time to the maximum, by throughput: kind ("synchronous", "rate",
                            "concurrent", "throughput"), rate_qps (asked for, or null), throughput_qps, latency_s,
                            ttft_s, inter_token_s, requests, seconds

Within a file targets took turns, so ratios between its rows hold; between files they may not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pennyweight.errors import MeasurementError
from pennyweight.files import write_text
from pennyweight.json_file import check_keys, checksum, read_json

Json = dict[str, Any]
#: Version of the keys.
SCHEMA = 1
KIND = "benchmark"
MODES = ("sync", "async")
NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
KEYS: dict[str, Any] = {
    "kind": str, "pennyweight": str, "versions": dict, "machine": dict, "model": (dict, type(None)), "seed": int,
    "settings": dict, "prices": (dict, type(None)), "targets": list, "rows": list, "notes": list, "partial": bool,
    "seconds": NUMBER, "sha256": str,
}  # fmt: skip
MACHINE_KEYS: dict[str, Any] = {"name": str, "gpu": (str, type(None)), "gpus": int}
TARGET_KEYS: dict[str, Any] = {"format": str, "name": str, "kind": str, "baseline": bool}
ROW_KEYS: dict[str, Any] = {
    "format": str, "use_case": str, "mode": str, "prefill_tokens": int, "decode_tokens": int, "latency_s": NUMBER,
    "throughput_qps": OPTIONAL, "ttft_s": OPTIONAL, "inter_token_s": OPTIONAL, "prefill_s": OPTIONAL,
    "decode_s": OPTIONAL, "output_tokens_per_s": NUMBER, "gpu": (str, type(None)), "gpus": int,
    "usd_per_hour": OPTIONAL, "queries_per_dollar": OPTIONAL, "repeats": int, "spread": OPTIONAL, "source": str,
    "partial": bool, "points": list,
}  # fmt: skip
POINT_KEYS: dict[str, Any] = {
    "kind": str, "rate_qps": OPTIONAL, "throughput_qps": NUMBER, "latency_s": NUMBER, "ttft_s": OPTIONAL,
    "inter_token_s": OPTIONAL, "requests": int, "seconds": NUMBER,
}  # fmt: skip
#: Of rows and points: above 0 where they are there.
POSITIVE = ("prefill_tokens", "decode_tokens", "latency_s", "throughput_qps", "ttft_s", "inter_token_s", "prefill_s",
            "decode_s", "output_tokens_per_s", "gpus", "usd_per_hour", "queries_per_dollar", "repeats", "rate_qps",
            "requests", "seconds")  # fmt: skip
AGAIN = "run the benchmark again"


def sealed(result: Json) -> Json:
    """Return a result with its schema and checksum.

    Raises:
        MeasurementError: It holds NaN or Inf.
    """
    body = {key: value for key, value in result.items() if key not in ("schema", "kind", "sha256")}
    body = {"schema": SCHEMA, "kind": KIND, **body}
    try:
        return {**body, "sha256": checksum(body)}
    except ValueError as error:
        raise MeasurementError(
            f"benchmark: a result holds NaN or Inf, which is no measurement: {error}"
        ) from error


def write(path: str | Path, result: Json) -> None:
    """Write a result beside its place and move it in, with its checksum.

    Raises:
        MeasurementError: It cannot be written, or holds NaN or Inf.
    """
    write_text(Path(path), json.dumps(sealed(result), indent=1, allow_nan=False) + "\n", MeasurementError)


def read(path: str | Path) -> Json:
    """Read a result.

    Raises:
        MeasurementError: It is missing, truncated, of another version, changed by hand, or no result at all.
    """
    return check(path, read_json(Path(path), MeasurementError))


def check(path: str | Path, result: Any) -> Json:
    """Return a result if it is one, whole and unchanged; `path` is what an error names.

    Raises:
        MeasurementError: It is of another version, changed by hand, or no result at all.
    """
    if not isinstance(result, dict) or result.get("kind") != KIND:
        raise MeasurementError(f"{path}: is no result of pennyweight benchmark: its kind is not {KIND!r}")
    if result.get("schema") != SCHEMA:
        raise MeasurementError(
            f"{path}: has schema {result.get('schema')!r}, this pennyweight reads {SCHEMA}; {AGAIN}, or read it with "
            f"pennyweight {result.get('pennyweight', 'of its time')}"
        )
    check_keys(path, "", result, KEYS, MeasurementError)
    check_keys(path, "machine", result["machine"], MACHINE_KEYS, MeasurementError)
    for i, target in enumerate(result["targets"]):
        check_keys(path, f"targets[{i}]", target, TARGET_KEYS, MeasurementError)
    for i, row in enumerate(result["rows"]):
        _check_row(path, f"rows[{i}]", row)
    if checksum({key: value for key, value in result.items() if key != "sha256"}) != result["sha256"]:
        raise MeasurementError(f"{path}: was changed after it was written (its sha256 differs); {AGAIN}")
    return result


def _check_row(path: str | Path, where: str, row: Any) -> None:
    check_keys(path, where, row, ROW_KEYS, MeasurementError)
    if row["mode"] not in MODES or (row["mode"] == "async") != (row["throughput_qps"] is not None):
        raise MeasurementError(
            f"{path}: {where}.mode is {row['mode']!r} with throughput_qps {row['throughput_qps']!r}; sync has none, "
            f"async has one; {AGAIN}"
        )
    _check_positive(path, where, row)
    for i, point in enumerate(row["points"]):
        check_keys(path, f"{where}.points[{i}]", point, POINT_KEYS, MeasurementError)
        _check_positive(path, f"{where}.points[{i}]", point)


def _check_positive(path: str | Path, where: str, values: Json) -> None:
    for key in POSITIVE:
        value = values.get(key)
        if value is not None and not value > 0:
            raise MeasurementError(f"{path}: {where}.{key} is {value}, it must be above 0; {AGAIN}")
