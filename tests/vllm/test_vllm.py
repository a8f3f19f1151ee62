# SPDX-License-Identifier: Apache-2.0
"""The checkpoints through vLLM, in an environment of its own (`make test-vllm`): it answers as transformers does.

Both score the same held-out tokens, teacher-forced. Greedy tokens would compare little: logits in bfloat16 tie. The
bar of W4A16 is close to what bfloat16 itself does to two engines, so there transformers computes in float32.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax
from vllm_environment import SCHEMES, environment

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
#: Held-out windows and their length: 48 · 511 = 24,528 predicted tokens.
WINDOWS, LENGTH = 48, 512


@dataclass(frozen=True)
class Scored:
    """log p of every predicted token, float64 (windows, length − 1): in vLLM, in transformers, and in transformers at
    float32 (W8A8 rounds its activations and stays as it is); and vLLM's warnings.
    """

    vllm: np.ndarray
    transformers: np.ndarray
    float32: np.ndarray
    warnings: frozenset[str]


@pytest.fixture(scope="session")
def windows() -> torch.Tensor:
    from transformers import AutoTokenizer

    import heldout

    stream = heldout.heldout_ids(AutoTokenizer.from_pretrained(ROOT / "demo" / "model"))
    rows = stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH)
    assert len(rows) >= WINDOWS, f"{len(rows)} windows of held-out text with this Python; take 3.11"
    return rows[torch.arange(WINDOWS) * len(rows) // WINDOWS]


@pytest.fixture(scope="session")
def scored(
    interpreter: str,
    windows: torch.Tensor,
    checkpoints: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Scored]:
    """Each format of the demo model, and the model itself."""
    out = tmp_path_factory.mktemp("vllm")
    np.save(out / "windows.npy", windows.numpy())
    return {name: score(interpreter, folder, windows, out) for name, folder in checkpoints.items()}


def score(interpreter: str, folder: Path, windows: torch.Tensor, out: Path) -> Scored:
    """Score the windows with both engines."""
    found = out / f"{folder.name}.npy"
    command = [
        interpreter,
        str(Path(__file__).with_name("vllm_worker.py")),
        str(folder),
        str(out / "windows.npy"),
        str(found),
    ]
    ran = subprocess.run(
        command, cwd=out, env=environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-4000:]
    auto = in_transformers(folder, windows, "auto")
    exact = auto if "W8A8" in folder.name else in_transformers(folder, windows, torch.float32)
    return Scored(np.load(found).astype(np.float64), auto, exact, warnings_in(said))


@torch.inference_mode()
def in_transformers(folder: Path, windows: torch.Tensor, dtype: torch.dtype | str) -> np.ndarray:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    rows = []
    for batch in windows.split(8):
        log_p = log_softmax(model(input_ids=batch, use_cache=False).logits[:, :-1].float(), -1)
        rows.append(log_p.gather(-1, batch[:, 1:, None])[..., 0])
    return torch.cat(rows).double().numpy()


def warnings_in(said: str) -> frozenset[str]:
    """What was warned of, without process ids, times, source lines and other numbers; not how a run was shut down."""
    lines = [line for line in said.splitlines() if re.search(r"WARN|ERROR|[Ww]arning:", line)]
    return frozenset(
        re.sub(r"\d+", "#", line.partition("] ")[2] or line) for line in lines if "[shutdown]" not in line
    )


def perplexity(log_p: np.ndarray) -> float:
    return float(np.exp(-log_p.mean()))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean |Δ log p|."""
    return float(np.abs(one - other).mean())


def test_enough_tokens(windows: torch.Tensor) -> None:
    assert windows[:, 1:].numel() >= 20_000


@pytest.mark.parametrize("name", ["BF16", *SCHEMES])
def test_perplexity_is_that_of_transformers(scored: dict[str, Scored], name: str) -> None:
    one = scored[name]
    ours, theirs = perplexity(one.vllm), perplexity(one.transformers)
    print(f"{name}: perplexity {ours:.4f} in vLLM, {theirs:.4f} in transformers ({ours / theirs - 1:+.3%})")
    assert abs(ours / theirs - 1) <= 0.002


def test_w4a16_log_p_is_that_of_transformers(scored: dict[str, Scored]) -> None:
    """Held against float32, what the file stands for; in bfloat16 transformers rounds too, which is shown."""
    for name in ("W4A16-INT", "BF16"):
        exact, rounded = (
            distance(scored[name].vllm, one) for one in (scored[name].float32, scored[name].transformers)
        )
        print(f"{name}: mean |Δ log p| {exact:.5f} to transformers in float32, {rounded:.5f} in bfloat16")
    assert distance(scored["W4A16-INT"].vllm, scored["W4A16-INT"].float32) <= 0.015


@pytest.mark.parametrize("name", ["W8A8-INT", "W8A8-FP"])
def test_w8a8_log_p_is_within_what_quantization_moves(scored: dict[str, Scored], name: str) -> None:
    """The engines round activations differently, which moves log p about as much as quantization does."""
    apart = distance(scored[name].vllm, scored[name].transformers)
    moved = distance(scored[name].transformers, scored["BF16"].transformers)
    print(
        f"{name}: mean |Δ log p| {apart:.5f} between engines, {moved:.5f} by quantization ({apart / moved:.2f} x)"
    )
    assert apart <= 1.3 * moved


@pytest.mark.parametrize("name", SCHEMES)
def test_vllm_warns_of_nothing_else(scored: dict[str, Scored], name: str) -> None:
    assert not scored[name].warnings - scored["BF16"].warnings
