# SPDX-License-Identifier: Apache-2.0
"""The sections of the page, from the overview to the hashes. Each takes all runs and gives HTML."""

from __future__ import annotations

from collections.abc import Sequence

from pennyweight.report import plots
from pennyweight.report.answers import answers
from pennyweight.report.layers import errors, sensitivity
from pennyweight.report.markup import (
    code,
    ends,
    escape,
    figure,
    gallery,
    missing,
    number,
    share,
    table,
)
from pennyweight.report.runs import Json, Runs
from pennyweight.report.speed import speed


def body(runs: Runs) -> str:
    """Return all sections."""
    sections = [
        ("Formats", _formats(runs)),
        ("Speed and cost", speed(runs)),
        ("Recovery by task", _tasks(runs)),
        ("Did answers change?", _pairs(runs)),
        ("Beside the study", _study(runs)),
        ("Error by layer", errors(runs)),
        ("Sensitivity", sensitivity(runs)),
        ("Where answers part", answers(runs)),
        ("Versions and hashes", _versions(runs)),
    ]
    return "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections)


def _formats(runs: Runs) -> str:
    if not runs.evaluations:
        return missing(
            "No evaluation is among the runs",
            "pennyweight evaluate OUT --baseline SRC --suite quick --out runs",
        )
    suites = [s for s in _suites(runs) if any(_has(r, s, "recovery") for r in runs.evaluations)]
    head = [
        "model",
        "format",
        "size",
        *(f"recovery, {s}" for s in suites),
        "KL",
        "flips",
        "top-1",
        "perplexity",
    ]
    if not suites:
        head.insert(3, "recovery")
    rows = []
    for result in runs.evaluations:
        quick = result["suites"].get("quick", {}).get("metrics", {})
        recovered = [_recovery(result["suites"].get(suite)) for suite in suites] or ["not measured"]
        rows.append([
            escape(result["model"]["name"]), escape(_scheme(result)), _size(result, runs), *recovered,
            number(quick.get("kl"), "{:.5f}"), share(quick.get("flips")),
            share(quick.get("top1")), number(quick.get("perplexity"), "{:.4f}"),
        ])  # fmt: skip
    notes = []
    if not suites:
        notes.append(
            missing("Recovery needs a suite with tasks", "pennyweight evaluate ... --suite openllm-v1")
        )
    if not any("quick" in r["suites"] for r in runs.evaluations):
        notes.append(
            missing("KL, flips and perplexity need the suite quick", "pennyweight evaluate ... --suite quick")
        )
    partial = [
        f"{r['model']['name']}: {s}"
        for r in runs.evaluations
        for s, one in r["suites"].items()
        if one["partial"]
    ]
    if partial:
        notes.append(missing(f"Partial results, which are no measurement: {', '.join(partial)}"))
    explained = (
        '<p class="dim">Size: parameters and buffers in memory. Recovery: 100 · average / average of the '
        "baseline, 95 % interval. KL: mean nats per token from the baseline. Flips: tokens whose likeliest "
        "successor turned right or wrong. Top-1: likeliest token is the baseline's.</p>"
    )
    return table(head, rows) + explained + "".join(notes) + _format_plots(runs, suites)


def _format_plots(runs: Runs, suites: Sequence[str]) -> str:
    figures = []
    for suite in suites:
        found = [
            (r["model"]["name"], r["suites"][suite]["recovery"])
            for r in runs.evaluations
            if _has(r, suite, "recovery")
        ]
        values = [(one["value"], one["low"], one["high"]) for _, one in found]
        plot = plots.intervals([name for name, _ in found], values, "recovery, %", 100.0)
        figures.append(figure(f"Recovery, {suite}", "with 95 % interval; dotted: the baseline", plot))
    kl = [
        (r["model"]["name"], r["suites"]["quick"]["metrics"].get("kl"))
        for r in runs.evaluations
        if "quick" in r["suites"]
    ]
    known = [(name, float(value)) for name, value in kl if value is not None]
    if known:
        plot = plots.bars([name for name, _ in known], [value for _, value in known], "KL, nats per token")
        figures.append(figure("Distance from the baseline", "mean KL of the next token's distribution", plot))
    return gallery(figures)


def _tasks(runs: Runs) -> str:
    text = []
    for suite in _suites(runs):
        ran = [r for r in runs.evaluations if r["suites"].get(suite, {}).get("tasks")]
        names = list(dict.fromkeys(name for r in ran for name in r["suites"][suite]["tasks"]))
        if not names:
            continue
        scores = {r["model"]["name"]: r["suites"][suite]["tasks"] for r in ran}
        rows = []
        for result in ran:
            base = scores.get((result["baseline"] or {}).get("name", ""), {})
            cells = [_task(scores[result["model"]["name"]].get(n), base.get(n)) for n in names]
            rows.append([escape(result["model"]["name"]), *cells])
        text.append(f"<h3>{escape(suite)}</h3>" + table(["model", *map(escape, names)], rows))
    if not text:
        return missing(
            "No run has a suite with tasks", "pennyweight evaluate ... --suite openllm-v1 --datasets DIR"
        )
    return '<p class="dim">Score, 0 to 100; below it the share of the baseline\'s.</p>' + "".join(text)


def _task(score: float | None, baseline: float | None) -> str:
    if score is None:
        return "not measured"
    return f"{score:.2f}" + (f"<br><small>{100 * score / baseline:.2f} %</small>" if baseline else "")


def _pairs(runs: Runs) -> str:
    rows = []
    for result in runs.evaluations:
        for suite, one in result["suites"].items():
            pairs = one["pairs"]
            if pairs:
                rows.append([
                    escape(result["model"]["name"]), escape(suite), str(pairs["n"]), number(pairs["gained"], "{}"),
                    number(pairs["lost"], "{}"), number(pairs["mcnemar_p"], "{:.3g}"),
                    f"{pairs['difference']:+.4g}" + ends(pairs["low"], pairs["high"], "{:+.3g}"),
                    escape(pairs["verdict"]),
                ])  # fmt: skip
    if not rows:
        return missing(
            "No run has answers that can be paired with the baseline's",
            "pennyweight evaluate ... --baseline SRC with a suite of questions",
        )
    head = [
        "model",
        "suite",
        "items",
        "turned right",
        "turned wrong",
        "McNemar p",
        "difference [95 %]",
        "verdict",
    ]
    return table(head, rows)


def _study(runs: Runs) -> str:
    from pennyweight.study.compare import beside

    by_name = {r["model"]["name"]: r for r in runs.evaluations}
    found = [
        one._repr_html_()
        for result in runs.evaluations
        for one in beside(result, by_name.get((result["baseline"] or {}).get("name", "")))
        if one.lines
    ]
    if not found:
        return missing("No run has a suite and a model that the study measured")
    return "".join(f'<div class="scroll">{one}</div>' for one in found)


def _versions(runs: Runs) -> str:
    text = []
    if runs.evaluations:
        rows = []
        for result in runs.evaluations:
            model = result["model"]
            versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
            rows.append([
                escape(model["name"]), code(model.get("source")), code(model.get("hash")),
                escape(f"{model.get('kind', '')} {model.get('dtype', '')} {model.get('device', '')}"),
                escape(f"pennyweight {result['pennyweight']}, {versions}, seed {result['seed']}"),
            ])  # fmt: skip
        text.append(
            "<h3>Models</h3>"
            + table(["model", "from", "SHA-256 of config and weights", "ran as", "with"], rows, "text")
        )
        notes = dict.fromkeys(
            f"{suite}: {note}"
            for r in runs.evaluations
            for suite, one in r["suites"].items()
            for note in one["notes"]
        )
        if notes:
            text.append(
                f"<h3>Notes of the suites</h3><ul>{''.join(f'<li>{escape(n)}</li>' for n in notes)}</ul>"
            )
    for run in runs.quantizations:
        settings = {key: value for key, value in run.report["recipe"].items() if value not in (None, [])}
        recipe = ", ".join(f"{key} {value}" for key, value in settings.items())
        data = run.report["calibration"]
        about = "no data" if data is None else ", ".join(f"{key} {value}" for key, value in data.items())
        told = escape(f"{recipe}; calibration: {about}")
        text.append(f'<p><b>{escape(run.label)}</b> <span class="dim">{told}</span></p>')
    rows = [[code(file.name), escape(file.kind), code(file.sha256 or "not a file")] for file in runs.files]
    return "".join(text) + "<h3>Files of this report</h3>" + table(["file", "of", "SHA-256"], rows, "text")


def _suites(runs: Runs) -> list[str]:
    return list(dict.fromkeys(name for result in runs.evaluations for name in result["suites"]))


def _has(result: Json, suite: str, key: str) -> bool:
    return bool(result["suites"].get(suite, {}).get(key))


def _scheme(result: Json) -> str:
    return str(result["model"].get("scheme") or "unknown")


def _size(result: Json, runs: Runs) -> str:
    size = result["model"].get("bytes")
    if not size:
        return "unknown"
    whole = result["baseline"] or {}
    sizes = {r["model"]["name"]: r["model"].get("bytes") for r in runs.evaluations}
    base = whole.get("bytes") or sizes.get(whole.get("name", ""))
    return f"{size / 2**20:.1f} MiB" + (
        f" <small>{base / size:.2f} x smaller</small>" if base and base != size else ""
    )


def _recovery(suite: Json | None) -> str:
    if suite is None or not suite["recovery"]:
        return "-"
    one = suite["recovery"]
    return f"{one['value']:.2f} %" + ends(one["low"], one["high"], "{:.2f}")
