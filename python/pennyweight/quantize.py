# SPDX-License-Identifier: Apache-2.0
"""`pw.quantize`: a model's linear layers become quantized ones, in place.

    check everything ──► without data: layer by layer
                    └──► with data, block by block:
                           run the block, gathering what its layers read (Hessians, ranges)
                           fold SmoothQuant into it
                           scales and codes of each layer, its place taken by a quantized layer
                           run the quantized block, for what the next block reads

Until the last layer is done every original is kept, and on any failure, Ctrl-C included, all of them are put
back: the model is either quantized as a whole or as it was.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pennyweight import linear_bf16
from pennyweight.calibration.rows import as_calibration
from pennyweight.calibration.smoothing import norms_of, smooth_block
from pennyweight.calibration.walk import Batch, Inputs, block_inputs, gather
from pennyweight.checks import check_calibration, check_model
from pennyweight.devices import as_device, visiting
from pennyweight.fuse import fuse_model
from pennyweight.quantize_layer import FAILED, quantize_layer
from pennyweight.recipes import Recipe, as_recipe
from pennyweight.report import LayerReport, Report
from pennyweight.swap import decoder_blocks, evaluating, replace_module

if TYPE_CHECKING:
    from pennyweight.calibration import Calibration


def quantize(
    model: nn.Module,
    recipe: Recipe | str,
    calibration: Calibration | Tensor | None = None,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    fuse: bool = False,
) -> Report:
    """Quantize a model's linear layers inside its decoder blocks, in place.

    Args:
        model: A causal language model of transformers (Llama, Qwen2, Qwen3, Mistral, or built like them) in
            bfloat16, float16 or float32.
        recipe: A `Recipe`, or the name of a scheme for the study's own: "W8A8-FP", "W8A8-INT", "W4A16-INT".
        calibration: From `pw.calibration`, or token ids (n, length). GPTQ and SmoothQuant need it; rounding
            to nearest uses it for the report's output errors.
        device: Where to work. "cuda" for a model on the CPU: its blocks go through the card one after the
            other, together with the activations of all calibration rows, and come back quantized. None: where
            the model is.
        progress: Show a bar with the time left and the last layer's error.
        fuse: Compute q, k, v in one call, gate and up in another, and norms and activations with the
            quantization that follows (`fuse.fuse_model`), and the LM head, where it is in bfloat16, by
            our kernel (`linear_bf16.place`); saved unfused all the same.
    Returns:
        What was done, per layer and in total; it shows itself in a terminal and in a notebook.
    Raises:
        UnsupportedError, ShapeError, CalibrationError, PennyweightError: See `checks.py`; raised before
            anything is changed, but for NaN and Inf in activations (CalibrationError), after which the model
            is as it was.
    """
    start = time.perf_counter()
    recipe = as_recipe(recipe)
    data = None if calibration is None else as_calibration(calibration)
    targets = check_model(model, recipe, device)
    check_calibration(model, recipe, data)
    report = Report(recipe.to_dict(), data.to_dict() if data else None, size_before=model_bytes(model))
    work = _Work(model, recipe, targets, report, progress, as_device(device, "quantize"))
    with torch.no_grad(), evaluating(model), work:
        if data is None:
            for name, linear in targets.items():
                with visiting(linear, work.device):
                    work.layer(name, None)
                nn.Module.to(model.get_submodule(name), work.home)
        else:
            work.walk(data.ids)
    report.size_after = model_bytes(model)
    report.peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.seconds = time.perf_counter() - start
    report.warnings = _warnings(report, data, work)
    if fuse:
        report.warnings += [f"left unfused: {name}: {reason}" for name, reason in fuse_model(model).items()]
        linear_bf16.place(model)
    return report


def model_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, shared ones counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


class _Work:
    """A model on its way; leaving the context by an exception puts everything back."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        targets: dict[str, nn.Linear],
        report: Report,
        progress: bool,
        device: torch.device | None,
    ) -> None:
        from tqdm.auto import tqdm

        self.model, self.recipe, self.targets, self.report = model, recipe, targets, report
        self.home = next(model.parameters()).device
        self.device = device or self.home
        self.homes: dict[Tensor, Tensor] = {}  # of the block at hand: what its tensors are where the model is
        self.dead: list[str] = []
        self.undo: list[Callable[[], None]] = []
        self.bar = tqdm(total=len(targets), desc=recipe.scheme, unit="layer", disable=not progress)

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            for step in reversed(self.undo):
                step()
        self.undo.clear()
        self.bar.close()

    def walk(self, ids: Tensor) -> None:
        """Quantize block by block with cached activations."""
        prefix, blocks = decoder_blocks(self.model)
        batches = block_inputs(self.model, blocks, ids, self.device)
        for index, block in enumerate(blocks):
            with visiting(block, self.device) as self.homes:
                self._block(f"{prefix}.{index}", block, index, batches)
                if index + 1 < len(blocks):
                    for batch in batches:
                        batch.hidden = batch.run(block, index)

    def _block(self, name: str, block: nn.Module, index: int, batches: list[Batch]) -> None:
        targets = {n.removeprefix(f"{name}."): m for n, m in self.targets.items() if n.startswith(f"{name}.")}
        if not targets:
            return
        smooth = self.recipe.smoothquant
        linears = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
        names: dict[nn.Module, str] = {m: n for n, m in (linears if smooth is not None else targets).items()}
        watched = norms_of(block) if smooth is not None else {}
        inputs = gather(block, name, index, batches, names, watched, hessian=True, ranges=smooth is not None)
        if smooth is not None:
            smooth_block(
                block, index, name, inputs, set(targets), float(smooth), batches[0], self._set_tensor
            )
        for target in targets:
            self.layer(f"{name}.{target}", inputs.pop(target, None))

    def layer(self, name: str, inputs: Inputs | None) -> None:
        """Quantize one layer and put the result in its place."""
        start = time.perf_counter()
        linear = self.targets[name]
        done = quantize_layer(linear, self.recipe, inputs.hessian if inputs else None)
        self.undo.append(lambda: replace_module(self.model, name, linear))
        replace_module(self.model, name, done.layer)
        if done.dead_columns:
            self.dead.append(name)
        entry = LayerReport(
            name=name,
            shape=(linear.out_features, linear.in_features),
            algorithm=done.algorithm,
            output_error=done.output_error,
            weight_error=done.weight_error,
            damping=done.damping,
            tokens=inputs.tokens if inputs else 0,
            seconds=time.perf_counter() - start,
        )
        self.report.layers.append(entry)
        error = done.weight_error if done.output_error is None else done.output_error
        self.bar.set_postfix_str(f"{name.rpartition('.')[2]} error {100 * error:.2f} %", refresh=False)
        self.bar.update()

    def _set_tensor(self, module: nn.Module, name: str, tensor: Tensor) -> None:
        parameter = module.get_parameter(name)
        before = self.homes.get(parameter, parameter.data)
        self.undo.append(lambda: setattr(parameter, "data", before))
        parameter.data = tensor


def _warnings(report: Report, data: Calibration | None, work: _Work) -> list[str]:
    recipe, layers = work.recipe, report.layers
    found = []
    if data is not None and data.random and work.recipe.layer_scheme.bits == 4:
        found.append(
            "calibrated on random tokens, which costs accuracy at 4 bits; use texts like those to come"
        )
    if work.dead:
        found.append(
            f"inputs that were zero in every token, whose weights are zero now: {', '.join(work.dead)}"
        )
    few = [layer.name for layer in layers if data is not None and layer.tokens < layer.shape[1]]
    if few:
        found.append(f"fewer calibration tokens than input channels: {', '.join(few)}; use more samples")
    failed = [layer.name for layer in layers if layer.algorithm == FAILED]
    if failed:
        found.append(
            f"the Hessian was never positive definite, rounded to nearest instead: {', '.join(failed)}"
        )
    raised = [
        f"{layer.name} ({layer.damping:g})"
        for layer in layers
        if layer.damping is not None and recipe.damping is not None and layer.damping > recipe.damping
    ]
    if raised:
        found.append(f"damping was raised until the Hessian was positive definite: {', '.join(raised)}")
    return found
