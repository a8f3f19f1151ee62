# SPDX-License-Identifier: Apache-2.0
"""Time whole models: python benchmarks/bench_model.py --help.

A Llama-3.2-1B with random weights (16 layers, tied head in bfloat16 on every side) in our formats, rounded to nearest
and fused; in bfloat16 by torch (transformers, sdpa); and in bfloat16 and at the same bits by llama.cpp, where it is
installed (`make peers PEERS=ggml`). All sides have the same weights, and each one's logits are checked against
torch's bfloat16 before it is timed.

Prefill is a prompt into an empty cache with the logits of its last token. Decode is a token at a time after a prompt of
--context tokens: few, so that it is the weights that are read; after hundreds, torch's attention takes as long as all
the rest, in bfloat16 and in our formats alike. Each side is a process of its own, stopped while another has its turn;
the order is turned round every round, and figures are medians. Since what the machine does changes, each of our formats
is timed beside the bfloat16 sides anew. The weights are larger than the caches, so that decoding meets them cold. A
side whose prompts have taken --seconds is given no more of them: without AVX512-BF16 torch's bfloat16 takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import machine
import peers
import results
from results import Row

MODEL = "llama-3.2-1b-random"
SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "tie_word_embeddings": True,
}
OURS, TORCH, LLAMA = "pennyweight", "torch", "llama.cpp"


@dataclass(frozen=True)
class Format:
    """One of our formats: llama.cpp's with as many bits, and what its speed is to be against others'."""

    peers: tuple[str, ...]
    decode_of_best: float  # against the fastest bfloat16 decode
    decode_of_torch: float
    prefill_of_torch: float
    dots: bool  # whether prefill multiplies with BF16 dot products


FORMATS = {
    "W4A16-INT": Format(("q4_K", "q4_0"), 2.2, 3.3, 0.95, True),
    "W8A8-INT": Format(("q8_0",), 1.55, 1.8, 1.8, False),
    "W8A8-FP": Format(("q8_0",), 1.55, 1.7, 0.95, True),
}
#: What logits may be off by against torch's bfloat16, relative (Euclidean norms).
MOST_ERROR = {
    "bf16": 0.03,
    "W8A8-INT": 0.1,
    "q8_0": 0.1,
    "W8A8-FP": 0.3,
    "W4A16-INT": 0.6,
    "q4_K": 0.6,
    "q4_0": 0.6,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--formats", default=",".join(FORMATS), help="ours, by commas (default: %(default)s)")
    p.add_argument("--peers", default="ggml", choices=["ggml", "none"], help="none: torch's bfloat16 alone")
    p.add_argument("--prefill", type=int, default=512, help="tokens of the prompt")
    p.add_argument("--prefill-rounds", type=int, default=2, help="prompts of each side")
    p.add_argument(
        "--seconds", type=float, default=60, help="of prompts, after which a side is given no more"
    )
    p.add_argument("--decode", type=int, default=8, help="tokens that a side decodes in a turn")
    p.add_argument("--rounds", type=int, default=5, help="turns of each side in decoding")
    p.add_argument("--context", type=int, default=16, help="tokens of the prompt before decoding")
    p.add_argument("--layers", type=int, default=16, help="fewer: for a try")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=Path, help="where the rows go")
    p.add_argument(
        "--save", action="store_true", help=f"also into {machine.results_file()}, in place of older ones"
    )
    options = p.parse_args(arguments)
    for form in options.formats.split(","):
        if form not in FORMATS:
            p.error(f"--formats: {form} is none of {', '.join(FORMATS)}")
    return options


def tokens(count: int) -> list[int]:
    """Return so many token ids, the same every time."""
    return [i * 7919 % int(SHAPE["vocab_size"]) for i in range(count)]  # type: ignore[call-overload]


@dataclass
class Side:
    """A model in its process, and what it took."""

    name: str
    form: str
    worker: peers.Worker
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    error: float = 0.0

    def row(self, options: argparse.Namespace, beside: str) -> Row:
        """Sum up, for the run of one of our formats."""
        low, median, high = statistics.quantiles(self.decode, n=4)
        return {"model": MODEL, "side": self.name, "format": self.form, "beside": beside, "head": "bf16",
                "layers": options.layers, "threads": options.threads, "prefill_tokens": options.prefill,
                "context_tokens": options.context,
                "prefill_tok_s": options.prefill / statistics.median(self.prefill), "decode_tok_s": 1 / median,
                "decode_spread": (high - low) / 2 / median, "error": self.error}  # fmt: skip


class Bench:
    """The sides of a run, and the folder in which weights and logits travel.

    Args:
        options: The command line.
        folder: An empty one, with room for three models.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        room = max(options.prefill, options.context) + options.decode * options.rounds
        self._shape = {
            **SHAPE,
            "num_hidden_layers": options.layers,
            "max_position_embeddings": -(-room // 256) * 256,
        }
        self.plain: list[Side] = []
        self._exact: np.ndarray | None = None

    def side(self, name: str, form: str, stack: contextlib.ExitStack) -> Side:
        """Start a side and check its logits; it ends with the stack."""
        runtime = "ggml" if name == LLAMA else "torch"
        interpreter = peers.python(runtime)
        assert interpreter is not None
        threads = [str(self._options.threads)]
        worker = peers.Worker(runtime, interpreter, threads, patience=900, script=f"model_{runtime}.py")
        stack.callback(worker.close)
        worker.ask(do="build", form=form, shape=self._shape, folder=str(self._folder))
        side = Side(name, form, worker)
        file = self._folder / "logits"
        worker.ask(do="prefill", ids=tokens(32), file=str(file))
        logits = np.fromfile(file, np.float32)
        if self._exact is None:
            self._exact = logits
        side.error = float(np.linalg.norm(logits - self._exact) / np.linalg.norm(self._exact))
        if not side.error <= MOST_ERROR[form]:
            sys.exit(f"{name} {form}: its logits are off by {side.error:.3g} of torch's bfloat16, at most "
                     f"{MOST_ERROR[form]} is right; not timed")  # fmt: skip
        return side

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start the bfloat16 sides."""
        self.plain.append(self.side(TORCH, "bf16", stack))
        if self._options.peers == "none":
            return
        if peers.python("ggml") is None:
            print("llama.cpp is not installed: make peers PEERS=ggml")
            return
        self.plain[0].worker.ask(do="save")
        self.plain.append(self.side(LLAMA, "bf16", stack))
        for file in self._folder.glob("*.weight"):
            file.unlink()

    def run(self, form: str) -> list[Row]:
        """Time one of our formats beside the bfloat16 sides and llama.cpp's formats with as many bits."""
        with contextlib.ExitStack() as stack:
            sides = [*self.plain, self.side(OURS, form, stack)]
            if len(self.plain) > 1:
                sides += [self.side(LLAMA, peer, stack) for peer in FORMATS[form].peers]
            for side in sides:
                side.decode = []
            for turn in range(self._options.prefill_rounds):
                for side in sides[:: -1 if turn % 2 else 1]:
                    if sum(side.prefill) > self._options.seconds:
                        continue
                    taken = side.worker.ask(do="prefill", ids=tokens(self._options.prefill), file=None)
                    side.prefill.append(taken["seconds"])
            for side in sides:
                side.worker.ask(do="prefill", ids=tokens(self._options.context), file=None)
            for turn in range(self._options.rounds):
                for side in sides[:: -1 if turn % 2 else 1]:
                    side.decode += side.worker.ask(do="decode", ids=tokens(self._options.decode))["seconds"]
            return [side.row(self._options, form) for side in sides]


def verdicts(rows: list[Row], dots: bool) -> list[str]:
    """Hold the run of one of our formats against its bars.

    Args:
        rows: Of all sides.
        dots: Whether the processor has BF16 dot products, which some bars assume.
    """
    ours = next(r for r in rows if r["side"] == OURS)
    plain = [r for r in rows if r["format"] == "bf16"]
    torch = next(r for r in plain if r["side"] == TORCH)
    form = FORMATS[ours["format"]]
    decode, prefill = "decode_tok_s", "prefill_tok_s"
    best = max(plain, key=lambda r: float(r[decode]))
    held = [(decode, best, form.decode_of_best, "the best bf16, "), (decode, torch, form.decode_of_torch, "")]
    held += [(decode, r, 1.0, "") for r in rows if r["format"] in form.peers]
    held += [(prefill, torch, form.prefill_of_torch, "")]
    out = []
    for what, base, bar, which in held:
        ratio = ours[what] / base[what]
        word, after = "met" if ratio >= bar else "missed", ""
        if what == prefill and form.dots and not dots:
            word, after = "not measured", "; the bar assumes AVX512-BF16, which this processor lacks"
        name = f"{ours['format']} {what.partition('_')[0]}"
        out.append(
            f"{word:<13}{name} >= {bar} x {which}{base['side']} {base['format']}: {ratio:.2f} x{after}"
        )
    return out


def show(rows: list[Row]) -> None:
    """Print the rows of one run, with ratios to torch's bfloat16."""
    for row in rows:
        prefill, decode = (row[what] / rows[0][what] for what in ("prefill_tok_s", "decode_tok_s"))
        print(f"{row['side']:<13}{row['format']:<11}{row['prefill_tok_s']:>10.1f}{prefill:>8.2f}x"
              f"{row['decode_tok_s']:>10.2f}{row['decode_spread']:>5.0%}{decode:>8.2f}x{row['error']:>8.4f}",
              flush=True)  # fmt: skip


def main() -> None:
    """Run every format and print it."""
    options = parse()
    machine.cap_torch()
    about = {"date": datetime.date.today().isoformat(), "threads": options.threads, **machine.describe()}
    print(f"device {about['machine']} | torch {about['torch']}, commit {about['commit']}, "
          f"{options.threads} threads, {options.layers} layers, prompt of {options.prefill}")  # fmt: skip
    print(
        f"{'side':<13}{'format':<11}{'prefill/s':>10}{'vs bf16':>9}{'decode/s':>10}{'±%':>5}{'vs bf16':>9}{'error':>8}"
    )
    rows: list[Row] = []
    judged: list[str] = []
    dots = machine.has_bf16_dots()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(options, Path(folder))
        bench.start(stack)
        for form in options.formats.split(","):
            run = bench.run(form)
            show(run)
            rows += run
            judged += verdicts(run, dots)
            if options.json:
                results.save_models(options.json, about, rows, keep=False)
            if options.save:
                results.save_models(machine.results_file(), about, rows, keep=True)
    print("\n".join(judged))


if __name__ == "__main__":
    main()
