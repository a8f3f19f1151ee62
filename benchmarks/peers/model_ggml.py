# SPDX-License-Identifier: Apache-2.0
"""A whole model in llama.cpp in a process of its own: python model_ggml.py ggml THREADS

Answers model_torch.py's commands, on the weights that its "save" left in the folder; forms are "bf16" and the names of
ggml's types. Every layer's weights are of that type alone (llama.cpp's "pure"), and embedding and head, one tensor,
stay in bfloat16. Files are loaded, not mapped, so that ggml may lay weights out for the processor.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # llama.cpp prints

import gguf  # noqa: E402
import llama_cpp as c  # noqa: E402
import numpy as np  # noqa: E402
from worker import serve  # noqa: E402

TYPES = {
    "q8_0": c.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": c.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_K": c.LLAMA_FTYPE_MOSTLY_Q4_K_S,
}
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, shape: dict[str, Any], folder: Path) -> None:
    """Write the weights of a folder as llama.cpp reads them."""
    hidden, head = shape["hidden_size"], shape["head_dim"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(shape["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def add(source: str, name: str) -> None:
        bits = np.fromfile(folder / f"{source}.weight", np.uint16)
        if bits.size == hidden:  # a norm; llama.cpp wants float32
            writer.add_tensor(f"{name}.weight", (bits.astype(np.uint32) << 16).view(np.float32))
            return
        rows = bits.reshape(-1, shape["intermediate_size"] if source.endswith("down_proj") else hidden)
        if source.endswith(
            ("q_proj", "k_proj")
        ):  # rotated pairs are neighbours here, half a head apart there
            rows = rows.reshape(-1, 2, head // 2, hidden).swapaxes(1, 2).reshape(-1, hidden)
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(rows).view(np.uint8), raw_dtype=kind)

    add("model.embed_tokens", "token_embd")
    add("model.norm", "output_norm")
    for i in range(shape["num_hidden_layers"]):
        for source, name in LAYER.items():
            add(f"model.layers.{i}.{source}", f"blk.{i}.{name}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Session:
    """A model and its cache."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        c.llama_backend_init()

    def build(self, form: str, shape: dict[str, Any], folder: str) -> dict[str, Any]:
        base, path = Path(folder) / "bf16.gguf", Path(folder) / f"{form}.gguf"
        if not base.exists():
            write_gguf(base, shape, Path(folder))
        if not path.exists():
            how = c.llama_model_quantize_default_params()
            how.ftype, how.pure, how.nthread = TYPES[form], True, self._threads
            how.token_embedding_type = how.output_tensor_type = int(gguf.GGMLQuantizationType.BF16)
            if c.llama_model_quantize(str(base).encode(), str(path).encode(), how):
                raise RuntimeError(f"llama.cpp cannot quantize to {form}")
        loading = c.llama_model_default_params()
        loading.use_mmap = False
        self._model = c.llama_model_load_from_file(str(path).encode(), loading)
        running = c.llama_context_default_params()
        running.n_ctx = shape["max_position_embeddings"]
        running.n_batch = running.n_ubatch = 512
        running.n_threads = running.n_threads_batch = self._threads
        self._context = c.llama_init_from_model(self._model, running)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot load its model in {form}")
        self._vocabulary = shape["vocab_size"]
        return {"version": c.__version__}

    def _step(self, ids: list[int]) -> float:
        tokens = (c.llama_token * len(ids))(*ids)
        begin = time.perf_counter()
        if c.llama_decode(self._context, c.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError(f"llama_decode failed on {len(ids)} tokens")
        c.llama_synchronize(self._context)
        return time.perf_counter() - begin

    def prefill(self, ids: list[int], file: str | None) -> dict[str, Any]:
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        seconds = self._step(ids)
        if file:
            logits = np.ctypeslib.as_array(c.llama_get_logits(self._context), (self._vocabulary,))
            logits.astype(np.float32).tofile(file)
        return {"seconds": seconds}

    def decode(self, ids: list[int]) -> dict[str, Any]:
        return {"seconds": [self._step([token]) for token in ids]}


if __name__ == "__main__":
    serve(Session(int(sys.argv[2])), sys.stdin, answers)  # type: ignore[arg-type]
