# SPDX-License-Identifier: Apache-2.0
"""Speed and cost on the page: tokens per second, queries per dollar, and latency against throughput."""

from __future__ import annotations

from collections.abc import Iterator

from pennyweight.benchmark.benchmark import Benchmark, whole
from pennyweight.report import plots
from pennyweight.report.markup import escape, figure, gallery, missing, table
from pennyweight.report.runs import Json, Runs


def speed(runs: Runs) -> str:
    """Return tables and curves of each benchmark; each stands for itself, as figures of two runs are no neighbours."""
    if not runs.benchmarks:
        return missing(
            "No benchmark is among the runs",
            "pennyweight benchmark SRC OUT --mode sync --mode async --use-case rag --json speed.json",
        )
    explained = (
        '<p class="dim">Tokens of answers per second, sync: one query at a time; async: at the maximum throughput. '
        "Gain: against the baseline's. ±: half the distance between the quartiles.</p>"
    )
    return explained + "".join(_one(Benchmark(result)) for result in runs.benchmarks)


def _one(found: Benchmark) -> str:
    result = found.result
    model = f"{result['model']['name']} on " if result["model"] else ""
    prices = result["prices"]
    paid = (
        missing("Queries per dollar need a price", "pennyweight benchmark ... --price USD")
        if prices is None
        else f'<p class="dim">{prices["usd_per_hour"]:g} USD an hour, {escape(str(prices["source"]))}'
        + (f", {escape(prices['date'])}" if prices["date"] else "")
        + "</p>"
    )
    partial = missing("Partial result, which is no measurement") if result["partial"] else ""
    title = f"<h3>{escape(model + result['machine']['name'])}</h3>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in result["notes"])
    return (
        f"{title}{partial}{_table(found)}{paid}{gallery(list(_curves(found)))}"
        f"{f'<ul>{notes}</ul>' if notes else ''}"
    )


def _table(found: Benchmark) -> str:
    head = ["use case", "format", "tokens", "tokens/s, sync", "latency", "queries/USD, sync", "tokens/s, async",
            "queries/s", "queries/USD, async"]  # fmt: skip
    pairs: dict[tuple[str, str], dict[str, Json]] = {}
    for row in found.rows:
        pairs.setdefault((row["use_case"], row["format"]), {})[row["mode"]] = row
    rows = []
    for (case, form), modes in pairs.items():
        sync, many = modes.get("sync"), modes.get("async")
        lengths = next(f"{row['prefill_tokens']}/{row['decode_tokens']}" for row in modes.values())
        rows.append([
            escape(case), escape(form), lengths, _tokens(found, sync),
            "-" if sync is None else f"{1000 * sync['latency_s']:.4g} ms" + _spread(sync), _queries(sync),
            _tokens(found, many), "-" if many is None else f"{many['throughput_qps']:.4g}" + _spread(many),
            _queries(many),
        ])  # fmt: skip
    return table(head, rows)


def _tokens(found: Benchmark, row: Json | None) -> str:
    if row is None:
        return "-"
    gain = found.gain(row)
    against = "" if gain is None or row["format"] == found.baseline else f" <small>{gain:.2f} x</small>"
    return f"{row['output_tokens_per_s']:.4g}{against}"


def _queries(row: Json | None) -> str:
    if row is None or row["queries_per_dollar"] is None:
        return "-"
    return whole(row["queries_per_dollar"])


def _spread(row: Json) -> str:
    return "" if row["spread"] is None else f" <small>± {100 * row['spread']:.1f} %</small>"


def _curves(found: Benchmark) -> Iterator[str]:
    for case in dict.fromkeys(row["use_case"] for row in found.rows):
        swept = [row for row in found.rows if row["use_case"] == case and row["points"]]
        series = {
            row["format"]: [
                (p["throughput_qps"], 1000 * p["inter_token_s"]) for p in row["points"] if p["inter_token_s"]
            ]
            for row in swept
        }
        series = {form: points for form, points in series.items() if points}
        if series:
            plot = plots.curves(series, "queries/s", "between tokens, ms", plain=found.baseline)
            yield figure(
                f"Latency against throughput, {case}", "from one query at a time to the maximum", plot
            )
