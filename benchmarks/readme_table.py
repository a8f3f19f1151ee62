# SPDX-License-Identifier: Apache-2.0
"""Rewrite the README's generated parts: the measured table from results/*.json, the support grid from the registry.

python benchmarks/readme_table.py            rewrites README.md
python benchmarks/readme_table.py --check    exits 1 when it would change anything
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

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
Rows = list[dict[str, Any]]


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
    lines.append("| CUDA | " + " | ".join(["not yet"] * len(SCHEMES)) + " |")
    return "\n".join(lines)


def _cell(rows: Rows, op: str, m: int) -> str:
    """Geometric mean over shapes of the speed against bfloat16, for an op's best implementation."""
    of = [r for r in rows if r.get("impl") and r["op"] == op and r["M"] == m and r["vs_bf16"]]
    of = [r for r in of if r["impl"] == of[0]["impl"]]
    if not of:
        return "-"
    mean = math.exp(sum(math.log(r["vs_bf16"]) for r in of) / len(of))
    worst = min(r["vs_bf16"] for r in of)
    return f"{mean:.2f} x" + (f" ({worst:.2f} x)" if len(of) > 1 else "")


def measured(result: dict[str, Any]) -> str:
    """Draw one machine's table."""
    about, rows = result["about"], result["rows"]
    ms = sorted({r["M"] for r in rows})
    shapes = ", ".join(dict.fromkeys(f"{r['N']} x {r['K']}" for r in rows))
    capped = f", oneDNN capped to {about['onednn_max_cpu_isa']}" if about["onednn_max_cpu_isa"] else ""
    lines = [
        f"Speed of one linear layer against `torch.nn.functional.linear` in bfloat16, weights cold, "
        f"{about['threads']} threads: geometric mean over the shapes {shapes} (slowest shape in brackets). "
        f"{about['machine']}, torch {about['torch']}{capped}, {about['date']}, commit {about['commit']}.",
        "",
        "| format | " + " | ".join(f"M = {m}" for m in ms) + " |",
        "|---" * (len(ms) + 1) + "|",
    ]
    for scheme, op in SCHEMES.items():
        if any(r["op"] == op for r in rows):
            lines.append(f"| {scheme} | " + " | ".join(_cell(rows, op, m) for m in ms) + " |")
    return "\n".join(lines)


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

    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    before = README.read_text()
    after = fill(before, "speed", "\n\n".join(map(measured, results)))
    after = fill(after, "support", grid(_C.ops()))
    if "--check" in sys.argv:
        sys.exit("README.md is out of date: run python benchmarks/readme_table.py" if after != before else 0)
    README.write_text(after)


if __name__ == "__main__":
    main()
