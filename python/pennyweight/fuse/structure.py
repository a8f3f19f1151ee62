# SPDX-License-Identifier: Apache-2.0
"""Whether a decoder block is built as `block.py` computes it: seen on three tokens, not believed by its name.

    norm 1 → q, k, v → attention → o, + → norm 2 → gate, up → act(gate) · up → down, +

The model runs once; what goes into and comes out of each part is recorded, and has to be, bit for bit, what
this drawing says. Names alone would not do: Granite's blocks have Llama's names and scale what they add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pennyweight.fuse import decode
from pennyweight.fuse.block import DOWN, GATE_UP, NORMS, OUT, QKV, Fusion
from pennyweight.fuse.decode import Decoding
from pennyweight.layers import QuantizedLinear
from pennyweight.swap import evaluating

ATTENTION, MLP = "self_attn", "mlp"
CHILDREN = {ATTENTION, MLP, *NORMS}
PATHS = ("", ATTENTION, MLP, *NORMS, *QKV, *GATE_UP, DOWN)
TOKENS = 3
_EIGHT_BITS = ("fp8", "int8")


@dataclass(frozen=True)
class Found:
    """What can be fused of a block, and for what cannot, the reason by "" (all of it), "self_attn" or "mlp"."""

    fusion: Fusion
    reasons: dict[str, str]


@dataclass(frozen=True)
class Call:
    """A call of a module, as a hook saw it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def x(self) -> Any:
        """Its first argument."""
        return self.args[0] if self.args else self.kwargs.get("hidden_states")

    @property
    def y(self) -> Any:
        """Its (first) result."""
        return self.output[0] if isinstance(self.output, tuple) else self.output


def examine(model: nn.Module, blocks: Iterable[nn.Module]) -> list[Found]:
    """Find what of each block can be fused; runs the model once on three tokens."""
    blocks = list(blocks)
    reasons = [_unlike(block) for block in blocks]
    calls: list[dict[str, Call]] = [{} for _ in blocks]
    fit = [i for i, reason in enumerate(reasons) if reason is None]
    try:
        with torch.no_grad(), evaluating(model):
            with ExitStack() as hooks:
                for i in fit:
                    hooks.enter_context(_recorded(blocks[i], calls[i]))
                if fit:
                    model(input_ids=_ids(model), use_cache=False)
            return [
                _none(reason) if reason is not None else _judge(block, seen)
                for block, reason, seen in zip(blocks, reasons, calls, strict=True)
            ]
    except Exception as error:  # whatever a foreign model raises
        why = f"the model does not run on {TOKENS} tokens: {error}"
        return [_none(reason or why) for reason in reasons]


def _unlike(block: nn.Module) -> str | None:
    children = {name for name, _ in block.named_children()}
    if children != CHILDREN:
        return f"its parts are {', '.join(sorted(children))}, not {', '.join(sorted(CHILDREN))}"
    names = {name for name, _ in block.named_modules()}
    missing = [path for path in PATHS if path not in names]
    if missing:
        return f"it has no {', '.join(missing)}"
    if "forward" in vars(block):
        return "its forward has been replaced (by accelerate's hooks?)"
    return None


def _ids(model: Any) -> Tensor:
    embeddings = model.get_input_embeddings()
    ids = torch.arange(1, TOKENS + 1, device=embeddings.weight.device)
    return ids.remainder(embeddings.num_embeddings).unsqueeze(0)


@contextmanager
def _recorded(block: nn.Module, calls: dict[str, Call]) -> Iterator[None]:
    def record(path: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[path] = Call(args, kwargs, output)

    with ExitStack() as stack:
        for path in PATHS:
            module = block.get_submodule(path)
            stack.enter_context(module.register_forward_hook(partial(record, path), with_kwargs=True))
        yield


def _judge(block: nn.Module, calls: dict[str, Call]) -> Found:
    missing = [path or "the block" for path in PATHS if path not in calls]
    if missing:
        return _none(f"{', '.join(missing)} did not run on {TOKENS} tokens")
    wiring = _wiring(calls)
    if wiring is not None:
        return _none(wiring)
    reasons, eps = {}, []
    for part, norm, layers, check in (
        (ATTENTION, NORMS[0], QKV, _attention_reads_more),
        (MLP, NORMS[1], GATE_UP, _mlp_differs),
    ):
        eps.append(_eps(block.get_submodule(norm)))
        why = (
            _not_joinable(block, layers)
            or _not_rms_norm(block.get_submodule(norm), eps[-1], calls[norm])
            or _other_input(calls, layers, norm)
            or check(block, calls)
        )
        if why is not None:
            reasons[part] = why
    attention, mlp = ATTENTION not in reasons, MLP not in reasons
    silu = mlp and _is_silu(calls)
    down = silu and _takes_codes(block)
    decoding = _decoding(block, calls) if attention else None
    ours = (isinstance(block.get_submodule(name), QuantizedLinear) for name in (OUT, DOWN))
    whole = decoding is not None and silu and all(ours)
    fusion = Fusion(attention, mlp, silu, down, (eps[0] or 0.0, eps[1] or 0.0), decoding, whole)
    return Found(fusion, reasons)


def _none(reason: str) -> Found:
    return Found(Fusion(False, False, False, False, (0.0, 0.0)), {"": reason})


def _wiring(calls: dict[str, Call]) -> str | None:
    block, attention, mlp = calls[""], calls[ATTENTION], calls[MLP]
    passed = {name: value for name, value in attention.kwargs.items() if name != "hidden_states"}
    if len(block.args) > 1 or attention.args or not isinstance(block.output, Tensor):
        return "its forward takes or gives more than hidden states and named arguments"
    if passed.keys() != block.kwargs.keys() - {"hidden_states"} or any(
        value is not block.kwargs[name] for name, value in passed.items()
    ):
        return "its attention does not get the block's own arguments"
    if not _same(calls[NORMS[0]].x, block.x) or not _same(attention.x, calls[NORMS[0]].y):
        return f"its attention does not read {NORMS[0]} of the block's input"
    hidden = block.x + attention.y
    if not _same(calls[NORMS[1]].x, hidden) or not _same(mlp.x, calls[NORMS[1]].y):
        return f"its MLP does not read {NORMS[1]} of input + attention"
    if not _same(block.y, hidden + mlp.y):
        return "its output is not input + attention + MLP"
    return None


def _not_joinable(block: nn.Module, names: tuple[str, ...]) -> str | None:
    layers = {name.rpartition(".")[2]: block.get_submodule(name) for name in names}
    plain = [name for name, layer in layers.items() if not isinstance(layer, QuantizedLinear)]
    if plain:
        return f"{', '.join(plain)} not quantized by pennyweight"
    schemes = {name: str(layer._scheme) for name, layer in layers.items()}
    if len(set(schemes.values())) > 1:
        return f"different schemes: {', '.join(f'{name} {s}' for name, s in schemes.items())}"
    biased = [name for name, layer in layers.items() if layer.bias is not None]
    if biased and len(biased) < len(layers):
        return f"{', '.join(biased)} with a bias, the others without"
    return None


def _eps(norm: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        eps = getattr(norm, name, None)
        if isinstance(eps, float):
            return eps
    return None


def _not_rms_norm(norm: nn.Module, eps: float | None, call: Call) -> str | None:
    weight, x = getattr(norm, "weight", None), call.x
    if eps is None or not isinstance(weight, Tensor) or weight.dtype != x.dtype:
        return f"its norm ({type(norm).__name__}) has no weight of the activations' dtype and no eps"
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if not _same(call.y, weight * normed.to(x.dtype)):
        return f"its norm ({type(norm).__name__}) is not x / rms(x) · weight"
    return None


def _other_input(calls: dict[str, Call], names: tuple[str, ...], norm: str) -> str | None:
    other = [name for name in names if not _same(calls[name].x, calls[norm].y)]
    return f"{', '.join(other)} does not read {norm}" if other else None


def _attention_reads_more(block: nn.Module, calls: dict[str, Call]) -> str | None:
    """Whether the attention module makes anything of its input but q, k and v: it gets NaN for it."""
    call = calls[ATTENTION]
    nan = torch.full_like(call.x, torch.nan)
    with _kept(block, calls):
        again = block.get_submodule(ATTENTION)(**{**call.kwargs, "hidden_states": nan})
    if not _same(again[0], call.y):
        return "its attention reads its input elsewhere than in q_proj, k_proj and v_proj"
    return None


@contextmanager
def _kept(block: nn.Module, calls: dict[str, Call]) -> Iterator[None]:
    """q, k and v give what they gave before, whatever they are given."""

    def kept(name: str, *_: Any) -> Any:
        return calls[name].output

    with ExitStack() as stack:
        for name in QKV:
            stack.enter_context(block.get_submodule(name).register_forward_hook(partial(kept, name)))
        yield


def _decoding(block: nn.Module, calls: dict[str, Call]) -> Decoding | None:
    call, attention = calls[ATTENTION], block.get_submodule(ATTENTION)
    kwargs = {**call.kwargs, "hidden_states": call.x}
    q, k, v = (calls[name].y for name in QKV)
    try:
        with _kept(block, calls):
            return decode.examine(attention, kwargs, q, k, v, call.y)
    except Exception:  # whatever a foreign module raises where it is handed a cache that is none
        return None


def _mlp_differs(block: nn.Module, calls: dict[str, Call]) -> str | None:
    gate, up = (calls[name].y for name in GATE_UP)
    activation = getattr(block.get_submodule(MLP), "act_fn", None)
    if activation is None or not _same(calls[DOWN].x, activation(gate) * up):
        return "its MLP is not down_proj(act_fn(gate_proj) · up_proj)"
    return None if _same(calls[MLP].y, calls[DOWN].y) else "its MLP gives more than down_proj"


def _is_silu(calls: dict[str, Call]) -> bool:
    gate, up = (calls[name].y for name in GATE_UP)
    return _same(calls[DOWN].x, functional.silu(gate) * up)


def _takes_codes(block: nn.Module) -> bool:
    """Whether down can take codes of the type that gate takes."""
    down, gate = block.get_submodule(DOWN), block.get_submodule(GATE_UP[0])
    if not isinstance(down, QuantizedLinear) or down.weight_kind not in _EIGHT_BITS:
        return False
    return isinstance(gate, QuantizedLinear) and down.weight_kind == gate.weight_kind


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
