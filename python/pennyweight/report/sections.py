# SPDX-License-Identifier: Apache-2.0
"""The sections of the page, from the overview to the hashes. Each takes all runs and gives HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pennyweight.report import plots
from pennyweight.report.runs import Json, Quantization, Runs

#: Pairs of answers that are shown of each model, those that part first.
SHOWN = 6
#: Smallest share that the heat maps' scale goes down to.
SMALLEST = 1e-5


def body(runs: Runs) -> str:
    """Return all sections."""
    sections = [
        ("Formats", _formats(runs)),
        ("Recovery by task", _tasks(runs)),
        ("Did answers change?", _pairs(runs)),
        ("Beside the study", _study(runs)),
        ("Error by layer", _layers(runs)),
        ("Sensitivity", _sensitivity(runs)),
        ("Where answers part", _answers(runs)),
        ("Versions and hashes", _versions(runs)),
    ]
    return "".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in sections)


def _formats(runs: Runs) -> str:
    if not runs.evaluations:
        return _missing(
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
            _escape(result["model"]["name"]), _escape(_scheme(result)), _size(result, runs), *recovered,
            _number(quick.get("kl"), "{:.5f}"), _share(quick.get("flips")),
            _share(quick.get("top1")), _number(quick.get("perplexity"), "{:.4f}"),
        ])  # fmt: skip
    notes = []
    if not suites:
        notes.append(
            _missing("Recovery needs a suite with tasks", "pennyweight evaluate ... --suite openllm-v1")
        )
    if not any("quick" in r["suites"] for r in runs.evaluations):
        notes.append(
            _missing(
                "KL, flips and perplexity need the suite quick", "pennyweight evaluate ... --suite quick"
            )
        )
    partial = [
        f"{r['model']['name']}: {s}"
        for r in runs.evaluations
        for s, one in r["suites"].items()
        if one["partial"]
    ]
    if partial:
        notes.append(_missing(f"Partial results, which are no measurement: {', '.join(partial)}"))
    explained = (
        '<p class="dim">Size: parameters and buffers in memory. Recovery: 100 · average / average of the '
        "baseline, 95 % interval. KL: mean nats per token from the baseline. Flips: tokens whose likeliest "
        "successor turned right or wrong. Top-1: likeliest token is the baseline's.</p>"
    )
    return _table(head, rows) + explained + "".join(notes) + _format_plots(runs, suites)


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
        figures.append(_figure(f"Recovery, {suite}", "with 95 % interval; dotted: the baseline", plot))
    kl = [
        (r["model"]["name"], r["suites"]["quick"]["metrics"].get("kl"))
        for r in runs.evaluations
        if "quick" in r["suites"]
    ]
    known = [(name, float(value)) for name, value in kl if value is not None]
    if known:
        plot = plots.bars([name for name, _ in known], [value for _, value in known], "KL, nats per token")
        figures.append(
            _figure("Distance from the baseline", "mean KL of the next token's distribution", plot)
        )
    return _plots(figures)


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
            rows.append([_escape(result["model"]["name"]), *cells])
        text.append(f"<h3>{_escape(suite)}</h3>" + _table(["model", *map(_escape, names)], rows))
    if not text:
        return _missing(
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
                    _escape(result["model"]["name"]), _escape(suite), str(pairs["n"]), _number(pairs["gained"], "{}"),
                    _number(pairs["lost"], "{}"), _number(pairs["mcnemar_p"], "{:.3g}"),
                    f"{pairs['difference']:+.4g}" + _ends(pairs["low"], pairs["high"], "{:+.3g}"),
                    _escape(pairs["verdict"]),
                ])  # fmt: skip
    if not rows:
        return _missing(
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
    return _table(head, rows)


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
        return _missing("No run has a suite and a model that the study measured")
    return "".join(f'<div class="scroll">{one}</div>' for one in found)


def _layers(runs: Runs) -> str:
    if not runs.quantizations:
        return _missing(
            "No report of quantize is among the runs",
            "pennyweight quantize SRC OUT --scheme S --json quantize.json",
        )
    errors = [_error(layer)[0] for run in runs.quantizations for layer in run.report["layers"]]
    positive = [e for e in errors if e > 0] or [1.0]
    low, high = max(min(positive), SMALLEST), max(positive)
    limits = (low, high if high > low else 2 * low)
    figures = [_figure(run.label, _summary(run), _heat_map(run, limits)) for run in runs.quantizations]
    warned = [
        f"<li>{_escape(run.label)}: {_escape(w)}</li>"
        for run in runs.quantizations
        for w in run.report["warnings"]
    ]
    return (
        '<p class="dim">Relative error of each layer\'s output on the calibration data; of its weight where there was '
        "no data. One scale for all maps.</p>"
        + _plots(figures)
        + (f"<ul>{''.join(warned)}</ul>" if warned else "")
    )


def _summary(run: Quantization) -> str:
    report = run.report
    kinds = {_error(layer)[1] for layer in report["layers"]}
    of = (
        "outputs"
        if kinds == {"output"}
        else "weights"
        if kinds == {"weight"}
        else "outputs, or weights without data"
    )
    saved = report["size_before"] / report["size_after"] if report["size_after"] else 1.0
    scheme = report["recipe"].get("scheme", "")
    return _escape(
        f"{scheme}, {len(report['layers'])} layers, {saved:.2f} x smaller, {report['seconds']:.0f} s; error of {of}"
    )


def _error(layer: Json) -> tuple[float, str]:
    if layer["output_error"] is not None:
        return float(layer["output_error"]), "output"
    return float(layer["weight_error"]), "weight"


def _heat_map(run: Quantization, limits: tuple[float, float]) -> str:
    grid: dict[str, dict[str, float]] = {}
    for layer in run.report["layers"]:
        found = re.search(r"\.(\d+)\.(.+)$", layer["name"])
        block, kind = (found[1], found[2].rpartition(".")[2]) if found else ("other", layer["name"])
        grid.setdefault(block, {})[kind.removesuffix("_proj")] = _error(layer)[0]
    kinds = list(dict.fromkeys(kind for row in grid.values() for kind in row))
    cells = [[row.get(kind) for kind in kinds] for row in grid.values()]
    return plots.heat_map(list(grid), kinds, cells, limits, "error, %; rows: blocks")


def _sensitivity(runs: Runs) -> str:
    if not runs.sensitivities:
        return _missing(
            "No sensitivity is among the runs", "pw.sensitivity(model, calibration).to_dict(), as JSON"
        )
    figures = []
    for one in runs.sensitivities:
        parts = sorted(one["parts"], key=lambda part: -part["kl"])[:30]
        names = [re.sub(r"^model\.(layers\.)?", "", part["name"]) for part in parts]
        plot = plots.bars(names, [part["kl"] for part in parts], "KL with it alone quantized, nats per token")
        more = f"the worst {len(parts)} of {len(one['parts'])}; " if len(parts) < len(one["parts"]) else ""
        about = (
            f"{more}{one['tokens']:,} tokens; all quantized: KL {one['kl_all']:.5f}, perplexity "
            f"{one['perplexity']:.4f} to {one['perplexity_all']:.4f}"
        )
        figures.append(_figure(f"{one['recipe'].get('scheme', '')} by {one['by']}", about, plot))
    return _plots(figures)


def _answers(runs: Runs) -> str:
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
        text.append(f"<h3>{_escape(result['model']['name'])}</h3><p>{same} of {len(items)} answers are the same text"
                    + (f"; the {SHOWN} that part first:" if len(apart) > SHOWN else ".") + "</p>")  # fmt: skip
        text += [_pair(item) for item in apart[:SHOWN]]
    if not text:
        return _missing(
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
        f'<div class="pair"><p><b>{_escape(shown[:400])}</b> <span class="dim">{where}</span></p>'
        f'<div class="sides">{"".join(sides)}</div></div>'
    )


def _marked(text: str, at: int) -> str:
    """The common start dimmed, the first word that differs marked."""
    word = re.match(r"\s*\S*", text[at:])
    end = at + (len(word[0]) if word else 0)
    differs = _escape(text[at:end]) or "(end)"
    return f'<span class="same">{_escape(text[:at])}</span><mark>{differs}</mark>{_escape(text[end:])}'


def _versions(runs: Runs) -> str:
    text = []
    if runs.evaluations:
        rows = []
        for result in runs.evaluations:
            model = result["model"]
            versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
            rows.append([
                _escape(model["name"]), _code(model.get("source")), _code(model.get("hash")),
                _escape(f"{model.get('kind', '')} {model.get('dtype', '')} {model.get('device', '')}"),
                _escape(f"pennyweight {result['pennyweight']}, {versions}, seed {result['seed']}"),
            ])  # fmt: skip
        text.append(
            "<h3>Models</h3>"
            + _table(["model", "from", "SHA-256 of config and weights", "ran as", "with"], rows, "text")
        )
        notes = dict.fromkeys(
            f"{suite}: {note}"
            for r in runs.evaluations
            for suite, one in r["suites"].items()
            for note in one["notes"]
        )
        if notes:
            text.append(
                f"<h3>Notes of the suites</h3><ul>{''.join(f'<li>{_escape(n)}</li>' for n in notes)}</ul>"
            )
    for run in runs.quantizations:
        settings = {key: value for key, value in run.report["recipe"].items() if value not in (None, [])}
        recipe = ", ".join(f"{key} {value}" for key, value in settings.items())
        data = run.report["calibration"]
        about = "no data" if data is None else ", ".join(f"{key} {value}" for key, value in data.items())
        told = _escape(f"{recipe}; calibration: {about}")
        text.append(f'<p><b>{_escape(run.label)}</b> <span class="dim">{told}</span></p>')
    rows = [[_code(file.name), _escape(file.kind), _code(file.sha256 or "not a file")] for file in runs.files]
    return "".join(text) + "<h3>Files of this report</h3>" + _table(["file", "of", "SHA-256"], rows, "text")


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
    return f"{one['value']:.2f} %" + _ends(one["low"], one["high"], "{:.2f}")


def _ends(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" <small>[{form.format(low)}, {form.format(high)}]</small>"


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{name}><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _figure(title: str, about: str, plot: str) -> str:
    return f"<figure><figcaption>{_escape(title)}<small>{about}</small></figcaption>{plot}</figure>"


def _plots(figures: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def _missing(what: str, how: str | None = None) -> str:
    return (
        f'<p class="missing">Missing: {_escape(what)}.'
        + (f" It is made by: <code>{_escape(how)}</code>" if how else "")
        + "</p>"
    )


def _code(value: Any) -> str:
    return f"<code>{_escape(str(value))}</code>" if value else "-"


def _escape(text: str) -> str:
    return html.escape(text)
