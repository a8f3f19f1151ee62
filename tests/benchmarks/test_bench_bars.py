# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind verdicts, merged results and the README's table, on made-up rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bars
import readme_table
import results

LIMITS = dict.fromkeys(("read", "copy", "vnni", "fma", "fma256", "madd16", "madd8"), 1e12) | {"bf16": 0.0}
OP = "linear_w8a8_int8"


def row(n: int, k: int, m: int, us: float, **more: Any) -> results.Row:
    """A row of 1 GB/s and 1 Gop/s per microsecond saved from 1000, to have round figures."""
    who = {} if "peer" in more else {"impl": "avx512vnni"}
    rates = {"bandwidth_share": us / 1000, "gop_per_s": us, "peak_share": us / 1000, "instruction": "vnni"}
    return {"op": OP, "M": m, "N": n, "K": k, "median_us": us, **who, **rates, **more}


def case(m: int, us: list[float], **more: Any) -> list[results.Row]:
    return [row(n, k, m, t, **more) for (n, k), t in zip(bars.SHAPES, us, strict=True)]


def judge(bar: bars.Bar, rows: list[results.Row]) -> tuple[bool | None, str]:
    return bars.judge(bar, bars.Run(rows, LIMITS))


def test_a_bar_is_for_the_geometric_mean_and_no_shape_may_stay_far_behind() -> None:
    bar = bars.Bar(OP, (16,), "of read bandwidth", bars.read_share, 0.8)
    assert judge(bar, case(16, [800, 800, 800, 800])) == (True, "16: 80% (6144x4096: 80%)")
    assert judge(bar, case(16, [799, 799, 799, 799]))[0] is False
    assert judge(bar, case(16, [900, 900, 900, 719])) == (
        False,
        "16: 85% (4096x14336: 72%)",
    )  # 0.9 * 0.8 is 72.0 %
    assert judge(bar, case(16, [900, 900, 900, 721]))[0] is True


def test_a_bar_below_which_to_stay() -> None:
    bar = bars.Bar(OP, (16,), "of it", bars.read_share, 0.03, below=True)
    assert judge(bar, case(16, [30, 30, 30, 29]))[0] is True
    assert judge(bar, case(16, [20, 20, 20, 34]))[0] is False


def test_a_bar_over_several_m_takes_all_of_them() -> None:
    bar = bars.Bar(OP, (4, 8, 16), "of read bandwidth", bars.read_share, 0.5)
    met, text = judge(bar, case(4, [600] * 4) + case(16, [400] * 4))
    assert met is False
    assert text == "4: 60% (6144x4096: 60%), 8: not run, 16: 40% (6144x4096: 40%)"
    assert judge(bar, case(4, [400] * 4) + case(16, [600] * 4))[0] is False


def test_a_peak_that_the_processor_lacks_is_said_and_counts_neither_way() -> None:
    bar = bars.Bar(OP, (16,), "of the BF16 peak", bars.peak_share("bf16"), 0.85)
    met, text = judge(bar, case(16, [700] * 4))
    assert met is None
    assert text == "16: this processor has no bf16 instruction; avx512vnni is at 70% of its own peak"


def test_the_fastest_peer_counts_and_a_missing_one_is_named() -> None:
    bar = bars.Bar(OP, (16,), "x the best peer", bars.against(of=OP), 1.3)
    slow, fast = case(16, [200] * 4, peer="vllm_int8"), case(16, [130] * 4, peer="zentorch_int8_dyn")
    assert judge(bar, case(16, [100] * 4) + slow) == (True, "16: 2.00 x (6144x4096: 2.00 x)")
    assert judge(bar, case(16, [101] * 4) + slow + fast)[0] is False
    met, text = judge(bars.Bar(OP, (16,), "x", bars.against("vllm_int8"), 1), case(16, [100] * 4) + fast)
    assert (met, text) == (None, "16: vllm_int8 did not run")


def test_verdicts_are_one_line_a_bar_that_something_was_measured_for() -> None:
    lines = bars.verdicts(case(1, [950] * 4), LIMITS)
    assert "met          linear_w8a8_int8 28672x4096 >= 90% of read bandwidth at M = 1: 95%" in lines
    assert all(OP in line for line in lines)


def test_fewer_tokens_may_take_no_longer_than_more() -> None:
    rows = [row(64, 64, m, us) for m, us in ((1, 10.0), (2, 10.4), (16, 10.0), (32, 9.9), (64, 20.0))]
    assert results.slower_than_larger(rows) == [
        "linear_w8a8_int8 avx512vnni 64x64: M=2 takes 10 us, M=32 10 us"
    ]
    assert results.slower_than_larger(rows, slack=0.06) == []


def test_a_run_takes_the_place_of_older_rows_and_of_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    first, second = (
        {"date": d, "commit": c, "machine": "M"} for d, c in (("2026-01-01", "a"), ("2026-02-02", "b"))
    )
    results.save(path, first, LIMITS, [row(64, 64, 1, 10.0), row(64, 64, 2, 11.0)], keep=True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "models": [1]}))
    results.save(path, second, LIMITS, [row(64, 64, 2, 12.0), row(64, 64, 2, 30.0, peer="p")], keep=True)
    read = json.loads(path.read_text())
    found = {(r.get("peer", r.get("impl")), r["M"]): (r["median_us"], r["commit"]) for r in read["rows"]}
    assert found == {("avx512vnni", 1): (10.0, "a"), ("avx512vnni", 2): (12.0, "b"), ("p", 2): (30.0, "b")}
    assert read["models"] == [1] and read["about"] == second


def test_table_has_both_ratios_and_the_slowest_shape() -> None:
    rows = case(1, [100] * 4, vs_bf16=2.0, vs_peer=1.5) + case(1, [150] * 4, peer="vllm_int8")
    rows[0] |= {"vs_bf16": 4.0, "vs_peer": None}
    about = {
        "threads": 2,
        "machine": "Some CPU",
        "torch": "2",
        "onednn_max_cpu_isa": "",
        "date": "d",
        "commit": "c",
    }
    text = readme_table.measured({"about": about, "rows": rows})
    assert "| format | against | M = 1 |" in text
    assert "| W8A8-INT | torch bfloat16 | 2.38 x (2.00 x) |" in text
    assert "| W8A8-INT | fastest peer | 1.50 x (1.50 x) |" in text
    assert "Peers that ran: `vllm_int8`." in text
    assert "Some CPU" in text and "commit c." in text


def test_table_of_whole_models_holds_each_format_against_those_of_its_own_run() -> None:
    def side(name: str, form: str, beside: str, prefill: float, decode: float) -> dict[str, Any]:
        speeds = {
            "prefill_tok_s": prefill,
            "decode_tok_s": decode,
            "prefill_tokens": 512,
            "context_tokens": 16,
        }
        about = {
            "model": "m",
            "layers": 16,
            "head": "bf16",
            "threads": 2,
            "torch": "2",
            "date": "d",
            "commit": "c",
        }
        return {"side": name, "format": form, "beside": beside, **speeds, **about}

    rows = []
    for form, slower in (("W8A8-INT", 1), ("W4A16-INT", 2)):
        rows += [
            side("torch", "bf16", form, 100 / slower, 10 / slower),
            side("llama.cpp", "bf16", form, 90, 12 / slower),
        ]
        rows += [side("pennyweight", form, form, 200, 24), side("llama.cpp", "q8_0", form, 120, 16)]
    text = readme_table.models(rows)
    assert "| W8A8-INT | 200 | 2.00 x | 24.0 | 2.40 x | 2.00 x | q8_0 1.50 x |" in text
    assert "| W4A16-INT | 200 | 4.00 x | 24.0 | 4.80 x | 4.00 x | q8_0 1.50 x |" in text


@pytest.mark.parametrize("path", sorted(readme_table.HERE.glob("results/*.json")), ids=lambda path: path.stem)
def test_saved_results_can_be_shown_and_judged(path: Path) -> None:
    result = json.loads(path.read_text())
    assert readme_table.tables(result) in readme_table.README.read_text(), (
        "run python benchmarks/readme_table.py"
    )
    bars.of_result(result)


def test_a_cards_results_are_shown_and_judged_by_bars_of_their_own() -> None:
    def layer(op: str, m: int, us: float, **more: Any) -> results.Row:
        return row(8192, 8192, m, us, op=op, vs_bf16=2.0, **more)

    about = {"card": {"compute": 90}, "machine": "Some GPU", "torch": "2", "date": "d", "commit": "c"}
    rows = [layer("linear_w4a16", m, us, impl="sm80") for m, us in ((1, 15.0), (16, 25.0))]
    models = [{"format": "W4A16-INT", "prefill_vs_bf16": 1.5, "decode_vs_bf16": 2.4}]
    result = {"about": about, "limits": {}, "rows": rows, "models": models}
    text = readme_table.tables(result)
    assert "Some GPU" in text and "| W4A16-INT | 2.00 x | 2.00 x | 1.50 x | 2.40 x |" in text
    said = [line for line in bars.of_result(result) if not line.startswith("not measured")]
    assert said == [
        "missed       W4A16 M = 1..16, 8192^2, us <= 20: 25",
        "met          decode W4A16-INT, of bf16 >= 1.9: 2.4",
    ]
