# SPDX-License-Identifier: Apache-2.0
"""Quantize a Llama in every format and print how well each answers and how fast it is.

Without --model: the demo model and its twin, which has activation outliers as large models do (make_twin.py). The text
is the Python standard library's own, files that the demo model was not trained on.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import platform
import shutil
import sys
import time
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import heldout
import pennyweight as pw
from make_twin import make_twin
from measure import PROMPT, Baseline, PeakMemory, Speed, mean_nll, speeds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HERE = Path(__file__).parent
OUT = HERE.parent / ".cache" / "demo"
LENGTH = 512
#: Held-out windows: 90 * 511 = 45,990 predicted tokens.
WINDOWS = 90
FORMATS = {
    "W8A8-FP": pw.Recipe("W8A8-FP"),
    "W8A8-INT": pw.Recipe("W8A8-INT"),
    "W8A8-INT, SmoothQuant": pw.Recipe("W8A8-INT", smoothquant=0.8),
    "W4A16-INT": pw.Recipe("W4A16-INT"),
    "W4A16-INT, plain RTN": pw.Recipe("W4A16-INT", algorithm="rtn", observer="minmax"),
}


@dataclass
class Row:
    """One format of one model; sizes in bytes, `speedup` against the BF16 model timed in turn with it."""

    format: str
    size: int
    quality: dict[str, Any]  # the metrics of the suite `quick`
    speed: Speed
    speedup: Speed
    seconds: float | None = None
    peak_memory: int | None = None
    nll_distance: float | None = None  # |mean NLL here - mean NLL in transformers|


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="a local Llama folder (default: the demo model and its twin)"
    )
    parser.add_argument(
        "--windows", type=int, default=WINDOWS, help="held-out windows (default: %(default)s)"
    )
    parser.add_argument(
        "--calibration", type=int, default=64, help="calibration windows (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the results here")
    return parser.parse_args()


def spread(stream: torch.Tensor, windows: int) -> torch.Tensor:
    """Take windows at even distances from a token stream: int64 (windows, LENGTH)."""
    rows = stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH)
    if len(rows) < windows:
        sys.exit(
            f"demo: {windows} windows of {LENGTH} tokens were asked for; the held-out text has {len(rows)}"
        )
    return rows[torch.arange(windows) * len(rows) // windows]


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def nll_in_transformers(folder: Path, windows: torch.Tensor) -> float:
    """Measure a checkpoint by transformers alone, without its many progress bars."""
    with redirect_stderr(io.StringIO()):
        return mean_nll(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval(), windows)


class Demo:
    """One model, its text and its baseline."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, size: int, out: Path,
                 options: argparse.Namespace) -> None:  # fmt: skip
        self.model, self.tokenizer, self.size, self.out = model, tokenizer, size, out
        self.windows = spread(heldout.heldout_ids(tokenizer), options.windows)
        self.calibration = heldout.calibration_ids(tokenizer, options.calibration, LENGTH)
        self.baseline = Baseline(model, self.windows)

    def bf16_row(self) -> Row:
        """Measure the model itself."""
        (speed,) = speeds([self.model], self.windows[:1, :PROMPT])
        return Row("BF16", self.size, self.baseline.compare(self.model), speed, Speed(1.0, 1.0))

    def row(self, name: str, recipe: pw.Recipe) -> Row:
        """Quantize a copy, save it, load it here and in transformers, and measure."""
        folder = self.out / name.replace(", ", "-").replace(" ", "-")
        seconds, peak = self._quantize(recipe, folder)
        model = pw.load(folder).eval()
        quality = self.baseline.compare(model)
        before, speed = speeds([self.model, model], self.windows[:1, :PROMPT])
        distance = abs(mean_nll(model, self.windows) - nll_in_transformers(folder, self.windows))
        speedup = Speed(speed.prefill / before.prefill, speed.decode / before.decode)
        return Row(name, folder_size(folder), quality, speed, speedup, seconds, peak, distance)

    def _quantize(self, recipe: pw.Recipe, folder: Path) -> tuple[float, int | None]:
        model = copy.deepcopy(self.model)
        begin = time.perf_counter()
        with PeakMemory() as memory:
            pw.quantize(model, recipe, calibration=self.calibration if recipe.needs_calibration else None,
                        progress=False)  # fmt: skip
        seconds = time.perf_counter() - begin
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        pw.save(model, folder, tokenizer=self.tokenizer)
        return seconds, memory.bytes


HEAD = (
    f"{'format':<23}{'MiB':>8}{'perplexity':>11}{'KL':>10}{'top-1':>8}{'prefill tok/s':>15}{'decode tok/s':>14}"
    f"{'quantize s':>12}{'peak MiB':>10}{'transformers':>14}"
)


def line(row: Row) -> str:
    """Format one row under HEAD."""
    prefill = f"{row.speed.prefill:,.0f} {row.speedup.prefill:.2f}x"
    decode = f"{row.speed.decode:,.0f} {row.speedup.decode:.2f}x"
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    peak = "-" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f}"
    distance = "-" if row.nll_distance is None else f"{row.nll_distance:.5f}"
    return (
        f"{row.format:<23}{row.size / 2**20:>8.2f}{row.quality['perplexity']:>11.4f}{row.quality['kl']:>10.6f}"
        f"{row.quality['top1']:>8.2%}{prefill:>15}{decode:>14}{seconds:>12}{peak:>10}{distance:>14}"
    )


def show(title: str, demo: Demo) -> list[Row]:
    """Print one model's table as it is made."""
    print(
        f"\n{title}: {demo.windows[:, 1:].numel():,} held-out tokens, {demo.calibration.numel():,} for calibration"
    )
    print(HEAD)
    rows = [demo.bf16_row()]
    print(line(rows[0]), flush=True)
    for name, recipe in FORMATS.items():
        rows.append(demo.row(name, recipe))
        print(line(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Print the tables."""
    options = parse()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = options.model or HERE / "model"
    trained = json.loads(heldout.MANIFEST.read_text())["python"]
    print(f"text: Python {platform.python_version()}'s library sources (the demo model was trained on {trained}'s), "
          f"torch {torch.__version__}, {torch.get_num_threads()} threads")  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto").eval()
    out = OUT / source.resolve().name
    results = {
        str(source): show(
            str(options.model or "demo model"), Demo(model, tokenizer, folder_size(source), out, options)
        )
    }
    if not options.model:
        twin = Demo(make_twin(model), tokenizer, folder_size(source), OUT / "twin", options)
        results["twin"] = show("its twin with activation outliers", twin)
    print("\nKL: mean nats per token from BF16; top-1: how often the likeliest token is BF16's; x: against BF16;\n"
          "peak: of the whole process, BF16 model and its kept logits included;\n"
          "transformers: |mean NLL here - in transformers| of the saved folder, nats per token.")  # fmt: skip
    if options.json:
        tables = {name: [asdict(row) for row in rows] for name, rows in results.items()}
        options.json.write_text(json.dumps({"version": 2, "tables": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
