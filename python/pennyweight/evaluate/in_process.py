# SPDX-License-Identifier: Apache-2.0
"""A model in this process: a folder, loaded when first asked for, or an object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pennyweight.checkpoint.tokenizer import load_tokenizer
from pennyweight.errors import EvaluationError
from pennyweight.evaluate.targets import Completion, Messages, is_ids
from pennyweight.fuse.joint import Part
from pennyweight.layers import QuantizedLinear
from pennyweight.swap import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Logits of one batch, bytes.
BATCH_BYTES = 1 << 28
#: Logits of a baseline that are kept, bytes; beyond, they are computed again for each model.
KEPT_BYTES = 1 << 30
#: Answers generated at once.
BATCH_ANSWERS = 8


class InProcess:
    """A causal language model of transformers, quantized by us or not.

    Args:
        model: In memory; put into eval mode while it is asked, and otherwise left as it is.
        tokenizer: Its tokenizer, for texts.
        name: In tables.
    """

    kind = "object"

    def __init__(self, model: nn.Module | None, tokenizer: Any, name: str) -> None:
        self._model, self._tokenizer, self.name = model, tokenizer, name
        self._description: dict[str, Any] | None = None
        self._kept: dict[bytes, Tensor] = {}  # logits by their ids
        self._room = 0

    @property
    def model(self) -> PreTrainedModel:
        """The torch module."""
        return self._model  # type: ignore[return-value]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, or None."""
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """How many logits the model has per position."""
        return int(self.model.config.get_text_config().vocab_size)

    def close(self) -> None:
        """Free what can be had again."""
        self._kept.clear()

    def remember(self, size: int = KEPT_BYTES) -> None:
        """Keep logits from now on, up to so many bytes, for whoever asks for those of the same ids again."""
        self._room = size

    def check_ids(self, rows: Sequence[Tensor]) -> None:
        """Raise EvaluationError where an id is not in the model's vocabulary."""
        for index, row in enumerate(rows):
            if int(row.max()) >= self.vocabulary or int(row.min()) < 0:
                raise EvaluationError(
                    f"{self.name}: row {index} of the data has the id {int(row.max())}, the model's vocabulary "
                    f"{self.vocabulary}; use ids of this model's own tokenizer"
                )

    def logits(self, ids: Tensor) -> Tensor:
        """(b, t) int64 -> (b, t, vocabulary) float32, the LM head's sums in float32 too.

        Rounded to bfloat16, logits have 3 digits: too few for the distance between two models.
        """
        key = ids.cpu().numpy().tobytes()
        if key in self._kept:
            return self._kept[key]
        logits = self._logits(ids)
        if logits.nbytes <= self._room:
            self._room -= logits.nbytes
            self._kept[key] = logits
        return logits

    def _logits(self, ids: Tensor) -> Tensor:
        with evaluating(self.model), _float_head(self.model), torch.inference_mode():
            logits: Tensor = self.model(input_ids=ids.to(self._device()), use_cache=False).logits.float()
        finite = torch.isfinite(
            logits.sum(-1)
        )  # a sum of finite logits is finite; no second tensor of their size
        if not finite.all():
            row, place = (~finite).nonzero()[0].tolist()
            raise EvaluationError(
                f"{self.name}: its logits hold NaN or Inf, first at position {place} of row {row} of a batch; the "
                "model is damaged or overflows in its dtype; quantize it again, or load it in another dtype"
            )
        return logits

    def log_likelihoods(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """As `Target.log_likelihoods`: rows of equal length share a batch, none is padded."""
        found: dict[int, Tensor] = {}
        for batch in self.batches([len(row) for row in rows]):
            ids = torch.tensor([list(rows[i]) for i in batch], dtype=torch.int64)
            logits = self.logits(ids)
            for index, row, one in zip(batch, ids, logits, strict=True):
                found[index] = one[:-1].log_softmax(-1).gather(-1, row[1:, None].to(one.device))[:, 0].cpu()
        return [found[i] for i in range(len(rows))]

    def batches(self, lengths: Sequence[int], size: int | None = None) -> Iterator[list[int]]:
        """Yield indices of rows that share a length, at most `size` or as many as BATCH_BYTES of logits hold."""
        by_length: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            by_length.setdefault(length, []).append(index)
        for length, indices in by_length.items():
            step = size or max(1, BATCH_BYTES // (4 * length * self.vocabulary))
            for start in range(0, len(indices), step):
                yield indices[start : start + step]

    def generate(
        self,
        prompts: Sequence[str | Messages | list[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """As `Target.generate`; prompts of one batch are padded on the left."""
        rows = [row for prompt in prompts for row in [self._prompt_ids(prompt)] * n]
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens} | (
            sampling if temperature > 0 else {"do_sample": False}
        )
        answers: list[Completion] = []
        with evaluating(self.model), torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for start in range(0, len(rows), BATCH_ANSWERS):
                answers += self._answer(rows[start : start + BATCH_ANSWERS], options, tuple(stop))
        return [answers[i : i + n] for i in range(0, len(answers), n)]

    def describe(self) -> dict[str, Any]:
        """Return name, kind, source, scheme, dtype, device, bytes, parameters, and a hash of config and weights."""
        if self._description is None:
            model = self.model
            schemes = sorted({str(m.scheme) for m in model.modules() if hasattr(m, "scheme")})
            self._description = {
                "name": self.name,
                "kind": self.kind,
                "source": self._source(),
                "scheme": ", ".join(schemes) or str(model.dtype).removeprefix("torch."),
                "dtype": str(model.dtype).removeprefix("torch."),
                "device": str(self._device()),
                "bytes": sum(
                    {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}.values()
                ),
                "parameters": _parameters(model),
                "hash": self._hash(),
            }
        return dict(self._description)

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _source(self) -> str | None:
        return getattr(self.model.config, "name_or_path", None) or None

    def _hash(self) -> str:
        digest = hashlib.sha256(self.model.config.to_json_string().encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _prompt_ids(self, prompt: str | Messages | list[int]) -> list[int]:
        if self.tokenizer is None:
            raise EvaluationError(f"{self.name}: generating needs its tokenizer; give tokenizer=")
        if is_ids(prompt):
            return prompt
        if isinstance(prompt, str):
            ids: list[int] = self.tokenizer(prompt, verbose=False)["input_ids"]
            return ids
        if not getattr(self.tokenizer, "chat_template", None):
            raise EvaluationError(f"{self.name}: its tokenizer has no chat template; give prompts as texts")
        text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        templated: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return templated

    def _answer(
        self, rows: list[list[int]], options: dict[str, Any], stop: tuple[str, ...]
    ) -> list[Completion]:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        width = max(map(len, rows))
        ends = _end_tokens(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (ends[0] if ends else 0)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self._device())
        mask = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._device()
        )
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
            pad_token_id=pad, eos_token_id=ends or None, **options
        )
        made = self.model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, generation_config=config,
            logits_processor=LogitsProcessorList([_Finite(self.name)]),
            stopping_criteria=StoppingCriteriaList([_Ended(self.tokenizer, stop, width)] if stop else []),
        )[:, width:].tolist()  # fmt: skip
        return [self._completion(row, set(ends), pad, stop) for row in made]

    def _completion(self, row: list[int], ends: set[int], pad: int, stop: tuple[str, ...]) -> Completion:
        place = next((i for i, token in enumerate(row) if token in ends), None)
        if place is not None:
            row = row[: place + 1]
        while (
            stop and place is None and row and row[-1] == pad
        ):  # a stop string ended it before others of its batch
            row = row[:-1]
        text = self.tokenizer.decode(row, skip_special_tokens=True)
        cuts = [at for s in stop if (at := text.find(s)) >= 0]
        finish = "stop" if place is not None or cuts else "length"
        return Completion(text[: min(cuts)] if cuts else text, len(row), finish)


class Folder(InProcess):
    """A checkpoint: quantized ones run on our kernels, the others as they are.

    Args:
        path: The folder.
        tokenizer: In place of the folder's.
        name: In tables; None: the folder's name.
    Raises:
        CheckpointError: The folder is not a model's; weights are read when first asked for.
    """

    kind = "folder"

    def __init__(self, path: Path, tokenizer: Any = None, name: str | None = None) -> None:
        from pennyweight.checkpoint.folder import read_folder

        self._folder = read_folder(path)
        super().__init__(None, tokenizer, name or path.resolve().name)

    @property
    def model(self) -> PreTrainedModel:
        """The torch module, loaded now if it is not there."""
        if self._model is None:
            from pennyweight.checkpoint.loader import load, load_dense
            from pennyweight.checkpoint.quantization_config import quantization_of

            dense = quantization_of(self._folder.config) is None
            self._model = load_dense(self._folder) if dense else load(self._folder.path)
        return self._model  # type: ignore[return-value]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, or None."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._folder.path)
        return self._tokenizer

    def close(self) -> None:
        """Let go of the weights."""
        super().close()
        self._model = None

    def _source(self) -> str | None:
        return str(self._folder.path)

    def _hash(self) -> str:
        digest = hashlib.sha256((self._folder.path / "config.json").read_bytes())
        for path in sorted({entry.file for entry in self._folder.tensors.values()}):
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


class _Finite:
    """Stops the generation at the first logit that is NaN or +Inf."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not torch.isfinite(scores.sum()):
            raise EvaluationError(
                f"{self._name}: its logits hold NaN or Inf after {input_ids.shape[1]} tokens; the model is damaged or "
                "overflows in its dtype; quantize it again, or load it in another dtype"
            )
        return scores


class _Ended:
    """Ends the rows whose last tokens complete a stop string.

    transformers' own criterion reads the whole vocabulary first, and fails for some tokenizers.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], width: int) -> None:
        self._tokenizer, self._stop, self._width = tokenizer, stop, width
        self._tail = max(len(s.encode()) for s in stop) + 4  # a token that counts has a byte at least

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        tails = [row[self._width :][-self._tail :] for row in input_ids]
        texts = [self._tokenizer.decode(tail, skip_special_tokens=True) for tail in tails]
        return torch.tensor([any(s in text for s in self._stop) for text in texts], device=input_ids.device)


def _parameters(model: nn.Module) -> int:
    """Return how many weights a model has, shared ones once; a quantized layer counts as what it stands for."""
    joint = {id(m.joint) for m in model.modules() if isinstance(m, Part)}  # their parts count in their place
    layers = [m for m in model.modules() if isinstance(m, QuantizedLinear) and id(m) not in joint]
    return sum(p.numel() for p in model.parameters()) + sum(m.out_features * m.in_features for m in layers)


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Return the ids that end an answer: of the generation config, and the tokenizer's own."""
    config = getattr(model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    listed = list(ends) if isinstance(ends, (list, tuple)) else [ends]
    return list(dict.fromkeys(int(e) for e in [*listed, tokenizer.eos_token_id] if e is not None))


@contextmanager
def _float_head(model: PreTrainedModel) -> Iterator[None]:
    """Let an LM head that is a plain linear layer compute in float32; what follows it in the model stays."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear) or head.weight.dtype == torch.float32:
        yield
        return

    def widen(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias.float()
        return linear(inputs[0].float(), module.weight.float(), bias)

    # A hook, though the head then runs twice: others (compressed-tensors) replace `forward` themselves meanwhile.
    handle = head.register_forward_hook(widen)
    try:
        yield
    finally:
        handle.remove()
