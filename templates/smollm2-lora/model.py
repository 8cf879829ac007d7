"""SmolLM2 (the Llama architecture) in mlx, read from a GGUF file and an optional LoRA adapter in PEFT's form."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import runtime  # noqa: F401  before mlx

import mlx.core as mx

from tokenizer import Tokenizer

GGUF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
LORA_A = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_A\.weight")


def folder(variable, default, name):
    return Path(os.environ.get(variable, default)) / name


def base_file():
    found = sorted(folder("PACK_MODELS", "/models", "base").rglob("*.gguf"))
    if len(found) != 1:
        raise SystemExit(f"expected one .gguf file in the base model's folder, found {len(found)}")
    return found[0]


@dataclass
class Config:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_base: float
    context: int


def dequantize(name, tensors):
    weight = tensors[f"{name}.weight"]
    if f"{name}.scales" not in tensors:
        return weight.astype(mx.float32)
    scales, biases = (tensors[f"{name}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    bits = weight.shape[1] * 32 // (scales.shape[1] * 32)
    return mx.dequantize(weight, scales, biases, group_size=32, bits=bits)


def unpermute(weight, heads):
    """GGUF pairs a rotary dimension with its neighbour, the published model with the one half a head away."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def load_gguf(path):
    """mlx opens a GGUF file for writing too, which a read-only file system refuses; then a copy in scratch serves."""
    if os.access(path, os.W_OK):
        return mx.load(str(path), return_metadata=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copyfile(path, Path(scratch) / "model.gguf")
        tensors, meta = mx.load(str(copy), return_metadata=True)
        mx.eval(tensors)
        return tensors, meta


class Model:
    def __init__(self, path):
        tensors, meta = load_gguf(path)

        def value(key):
            return meta[f"llama.{key}"].item()

        heads = value("attention.head_count")
        self.config = Config(
            layers=value("block_count"),
            heads=heads,
            kv_heads=value("attention.head_count_kv"),
            head_dim=value("embedding_length") // heads,
            eps=value("attention.layer_norm_rms_epsilon"),
            rope_base=value("rope.freq_base"),
            context=value("context_length"),
        )
        self.tokenizer = Tokenizer(meta)
        self.embedding = dequantize("token_embd", tensors)
        self.norm = dequantize("output_norm", tensors)
        self.layers = []
        for i in range(self.config.layers):
            layer = {ours: dequantize(f"blk.{i}.{theirs}", tensors) for theirs, ours in GGUF_NAMES.items()}
            for name, count in (("q_proj", heads), ("k_proj", self.config.kv_heads)):
                layer[f"self_attn.{name}"] = unpermute(layer[f"self_attn.{name}"], count)
            mx.eval(layer)
            self.layers.append(layer)
        mx.eval(self.embedding, self.norm)

    def merge(self, adapter):
        """Add a LoRA adapter's B·A to the weights it names."""
        config = json.loads((adapter / "adapter_config.json").read_text())
        tensors = mx.load(str(adapter / "adapter_model.safetensors"))
        for name, a in sorted(tensors.items()):
            if match := LORA_A.fullmatch(name):
                b = tensors[name.replace(".lora_A.", ".lora_B.")]
                self.layers[int(match[1])][match[2]] += (config["lora_alpha"] / config["r"]) * (b @ a)
        mx.eval(self.layers)

    def hidden(self, ids, cache=None, lora=None):
        """The last hidden states of a batch of token ids. A cache is a list with one (keys, values) or None a layer."""
        c = self.config
        x = self.embedding[ids]
        batch, length, width = x.shape

        for i, layer in enumerate(self.layers):

            def linear(h, module):
                y = h @ layer[module].T
                if lora and (i, module) in lora:
                    a, b, scale = lora[i, module]
                    y = y + scale * ((h @ a.T) @ b.T)
                return y

            def split(h, heads):
                return h.reshape(batch, length, heads, c.head_dim).transpose(0, 2, 1, 3)

            h = mx.fast.rms_norm(x, layer["input_layernorm"], c.eps)
            q = split(linear(h, "self_attn.q_proj"), c.heads)
            k = split(linear(h, "self_attn.k_proj"), c.kv_heads)
            v = split(linear(h, "self_attn.v_proj"), c.kv_heads)
            seen = cache[i][0].shape[2] if cache and cache[i] else 0
            q = mx.fast.rope(q, c.head_dim, traditional=False, base=c.rope_base, scale=1.0, offset=seen)
            k = mx.fast.rope(k, c.head_dim, traditional=False, base=c.rope_base, scale=1.0, offset=seen)
            if seen:
                k = mx.concatenate([cache[i][0], k], axis=2)
                v = mx.concatenate([cache[i][1], v], axis=2)
            if cache is not None:
                cache[i] = (k, v)
            mask = "causal" if length > 1 else None
            h = mx.fast.scaled_dot_product_attention(q, k, v, scale=c.head_dim**-0.5, mask=mask)
            x = x + linear(h.transpose(0, 2, 1, 3).reshape(batch, length, width), "self_attn.o_proj")

            h = mx.fast.rms_norm(x, layer["post_attention_layernorm"], c.eps)
            gate = linear(h, "mlp.gate_proj")
            x = x + linear(gate * mx.sigmoid(gate) * linear(h, "mlp.up_proj"), "mlp.down_proj")
        return mx.fast.rms_norm(x, self.norm, c.eps)

    def logits(self, hidden):
        return hidden @ self.embedding.T


def chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
