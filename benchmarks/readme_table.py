# SPDX-License-Identifier: Apache-2.0
"""Rewrite the README's generated parts: the measured table from results/*.json, the support grid from the registry.

python benchmarks/readme_table.py            rewrites README.md
python benchmarks/readme_table.py --check    exits 1 when it would change anything
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

from bars import RANKS
from results import geometric_mean

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SCHEMES = {
    "W8A8-FP": "linear_w8a8_fp8",
    "W8A8-INT": "linear_w8a8_int8",
    "W4A16-INT": "linear_w4a16",
    "W4A8 (op only)": "linear_w4a8_int8",
}
DEVICES = {
    "CPU with AVX512-BF16 and VBMI": "avx512bf16",
    "CPU with AVX512-VNNI": "avx512vnni",
    "CPU with AVX2": "avx2",
    "any x86-64 CPU": "reference",
}
#: Cards by compute capability; an implementation's name says the least that it is for.
CARDS = {
    "CUDA, compute capability 8.0, 8.6 (Ampere)": 80,
    "CUDA, compute capability 8.9 (Ada)": 89,
    "CUDA, compute capability 9.0 (Hopper)": 90,
}
#: Numbers of tokens that get a column, as far as they were measured.
TOKENS = (1, 4, 16, 64, 256, 1024)
Rows = list[dict[str, Any]]


def _on_cards(names: list[str], compute: int) -> str:
    """What a card runs of an op's implementations, best first; those on decoded weights are for many tokens."""
    able = [name for name in names if int(name.removeprefix("sm").split("_")[0]) <= compute]
    decoded = [name for name in able if name.endswith("_decoded")]
    few = next((name for name in able if name not in decoded), None)
    many = f" (many tokens: `{decoded[0]}`)" if decoded else ""
    return f"`{few}`{many}, not yet run on a card" if few else "none"


def grid(ops: dict[str, Any]) -> str:
    """Draw which implementation each processor runs for each scheme."""
    names = list(DEVICES.values())
    lines = ["| device | " + " | ".join(SCHEMES) + " |", "|---" * (len(SCHEMES) + 1) + "|"]
    for device, name in DEVICES.items():
        cells = []
        for op in SCHEMES.values():
            able = [i for i in ops[op]["implementations"] if names.index(i) >= names.index(name)]
            cells.append("plain loops" if able[0] == "reference" else f"`{able[0]}`")
        lines.append(f"| {device} | " + " | ".join(cells) + " |")
    for device, compute in CARDS.items():
        cells = [_on_cards(ops[op]["cuda"], compute) for op in SCHEMES.values()]
        lines.append(f"| {device} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Rows, ratio: str) -> str:
    """Geometric mean over shapes of a speed ratio; the slowest shape in brackets."""
    ratios = [r[ratio] for r in rows if r.get(ratio)]
    if not ratios:
        return "-"
    return f"{geometric_mean(ratios):.2f} x" + (f" ({min(ratios):.2f} x)" if len(ratios) > 1 else "")


def _of_best(rows: Rows, op: str) -> Rows:
    """An op's rows of the best implementation that they have."""
    names = {r.get("impl") for r in rows if r["op"] == op}
    best = next((name for name in RANKS if name in names), "")
    return [r for r in rows if r["op"] == op and r.get("impl") == best]


def measured(result: dict[str, Any]) -> str:
    """Draw one machine's table: against torch's bfloat16, and where peers ran against the fastest of the same kind."""
    about = result["about"]
    rows = [r for r in result["rows"] if r["op"] in SCHEMES.values() and r.get("impl") in RANKS]
    ms = [m for m in TOKENS if any(r["M"] == m for r in rows)]
    shapes = ", ".join(dict.fromkeys(f"{r['N']} x {r['K']}" for r in rows))
    capped = f", oneDNN capped to {about['onednn_max_cpu_isa']}" if about["onednn_max_cpu_isa"] else ""
    commits = ", ".join(dict.fromkeys(str(r.get("commit", about["commit"])) for r in rows))
    lines = [
        f"Speed of one linear layer, weights cold, {about['threads']} threads: geometric mean over the shapes {shapes} "
        f"(slowest shape in brackets). {about['machine']}, torch {about['torch']}{capped}, {about['date']}, commit "
        f"{commits}.",
        "",
        "| format | against | " + " | ".join(f"M = {m}" for m in ms) + " |",
        "|---" * (len(ms) + 2) + "|",
    ]
    for scheme, op in SCHEMES.items():
        mine = _of_best(rows, op)
        for ratio, name in (("vs_bf16", "torch bfloat16"), ("vs_peer", "fastest peer")):
            if any(r.get(ratio) for r in mine):
                cells = [_cell([r for r in mine if r["M"] == m], ratio) for m in ms]
                lines.append(f"| {scheme} | {name} | " + " | ".join(cells) + " |")
    peers = sorted({r["peer"] for r in result["rows"] if "peer" in r and r["op"] in SCHEMES.values()})
    if peers:
        lines += ["", "Peers that ran: " + ", ".join(f"`{peer}`" for peer in peers) + "."]
    return "\n".join(lines)


def calibration(rows: Rows) -> str:
    """Say what GPTQ of a weight takes beside a peer; empty where it was not measured."""
    whats = {"gptq_quantize": "the solver", "hessian_and_gptq": "with the Hessian of {M:,} tokens"}
    lines = []
    for (op, what), mine in itertools.product(whats.items(), (r for r in rows if r.get("impl"))):
        for peer in (r for r in rows if r["op"] == op == mine["op"] and "peer" in r):
            if (peer["N"], peer["K"]) == (mine["N"], mine["K"]):
                ratio, seconds = peer["median_us"] / mine["median_us"], mine["median_us"] / 1e6
                lines.append(f"{what.format(**mine)} {seconds:.1f} s, {ratio:.2f} x {peer['peer']}")
    of = next((f"({r['N']}, {r['K']})" for r in rows if r["op"] in whats), "")
    return f"GPTQ of a {of} weight: {'; '.join(lines)}." if lines else ""


def quantization(rows: Rows) -> str:
    """Say what share of a copy's bandwidth each op's best implementation reaches; empty where not measured."""
    large = [r for r in rows if r.get("copy_share")]
    found = [r for op in dict.fromkeys(r["op"] for r in large) for r in _of_best(large, op)]
    shares = ", ".join(f"`{r['op']}` {r['copy_share']:.0%}" for r in found)
    of = f"({found[0]['M']}, {found[0]['K']})" if found else ""
    return f"Quantization of {of} activations, share of the bandwidth of a copy: {shares}." if found else ""


def models(rows: Rows) -> str:
    """Draw one machine's whole models: ours against the bfloat16 of torch and of the fastest, and a peer's own bits.

    Args:
        rows: Of bench_model.py: each run has one of our formats and the sides timed beside it.
    """
    first = rows[0]
    commits = ", ".join(dict.fromkeys(str(r["commit"]) for r in rows))
    lines = [
        f"A whole {first['model']} ({first['layers']} layers, head in {first['head']}), tokens per second with "
        f"{first['threads']} threads: a prompt of {first['prefill_tokens']}; a token at a time after "
        f"{first['context_tokens']}. Torch {first['torch']}, {first['date']}, commit {commits}.",
        "",
        "| format | prefill | against torch bfloat16 | decode | against torch bfloat16 | the fastest bfloat16 | "
        "llama.cpp at the same bits |",
        "|---" * 7 + "|",
    ]
    for mine in (r for r in rows if r["side"] == "pennyweight"):
        run = [r for r in rows if r["beside"] == mine["format"] and r is not mine]
        plain = [r for r in run if r["format"] == "bf16"]
        torch = next(r for r in plain if r["side"] == "torch")
        fastest = max(r["decode_tok_s"] for r in plain)
        cells = [f"{mine['prefill_tok_s']:.0f}", f"{mine['prefill_tok_s'] / torch['prefill_tok_s']:.2f} x"]
        cells += [f"{mine['decode_tok_s']:.1f}", f"{mine['decode_tok_s'] / torch['decode_tok_s']:.2f} x"]
        cells += [f"{mine['decode_tok_s'] / fastest:.2f} x"]
        same = [
            f"{r['format']} {mine['decode_tok_s'] / r['decode_tok_s']:.2f} x" for r in run if r not in plain
        ]
        lines.append(f"| {mine['format']} | " + " | ".join([*cells, ", ".join(same) or "-"]) + " |")
    return "\n".join(lines)


def card(result: dict[str, Any]) -> str:
    """Draw what bench_card.py measured on a card: layers and whole models against torch's bfloat16."""
    about = result["about"]
    rows = [r for r in result["rows"] if r["op"] in SCHEMES.values() and "impl" in r]
    ms = [m for m in TOKENS if any(r["M"] == m for r in rows)]
    lines = [
        f"{about['machine']}, against torch's bfloat16: one linear layer (L2 flushed, geometric mean over "
        f"{len({(r['N'], r['K']) for r in rows})} shapes, slowest in brackets) and whole models. Torch "
        f"{about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        "| format | " + " | ".join(f"M = {m}" for m in ms) + " | prefill | decode |",
        "|---" * (len(ms) + 3) + "|",
    ]
    for scheme, op in SCHEMES.items():
        mine = [r for r in rows if r["op"] == op]
        whole = next((r for r in result.get("models", []) if r["format"] == scheme), None)
        cells = [_cell([r for r in mine if r["M"] == m], "vs_bf16") for m in ms]
        cells += [f"{whole[f'{part}_vs_bf16']:.2f} x" if whole else "-" for part in ("prefill", "decode")]
        if mine:
            lines.append(f"| {scheme} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(result: dict[str, Any]) -> str:
    """Draw all that was measured on one machine."""
    if "card" in result["about"]:
        return card(result)
    whole = models(result["models"]) if result.get("models") else ""
    rows = result["rows"]
    return "\n\n".join(filter(None, [measured(result), whole, quantization(rows), calibration(rows)]))


def fill(text: str, part: str, content: str) -> str:
    """Put content between a part's two comments."""
    begin, end = f"<!-- {part}: written by benchmarks/readme_table.py -->", f"<!-- /{part} -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    if not re.search(pattern, text, re.DOTALL):
        sys.exit(f"README.md has no place for {part!r}: {begin} {end}")
    return re.sub(
        pattern,
        lambda _: f"{begin}\n{content}\n{end}" if content else f"{begin}\n{end}",
        text,
        flags=re.DOTALL,
    )


def main() -> None:
    """Rewrite, or check."""
    from pennyweight import _C

    if not _C.cuda()["built"]:
        sys.exit("this build has no CUDA half, so the row of cards is not known: build with nvcc, PW_CUDA=ON")
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    before = README.read_text()
    after = fill(before, "speed", "\n\n".join(map(tables, results)))
    after = fill(after, "support", grid(_C.ops()))
    if "--check" in sys.argv:
        sys.exit("README.md is out of date: run python benchmarks/readme_table.py" if after != before else 0)
    README.write_text(after)


if __name__ == "__main__":
    main()
