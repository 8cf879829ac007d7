"""Train a LoRA adapter on a CPU. The same inputs, seed and threads give the same bytes."""

import json
import os
import random
import resource
import struct
import time

import runtime
from model import Model, base_file, chat, folder

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

RANK, ALPHA = 8, 16
LAYERS = range(15, 30)  # the upper half: the way back through the network ends where the lowest adapter sits
MODULES = ["q_proj", "v_proj"]
STEPS, BATCH, WARMUP, RATE = 24, 4, 3, 2e-3


def read(path, tokenizer):
    """Pairs of prompt ids and answer ids."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(tokenizer.encode(chat(row["question"])), [*tokenizer.encode(row["answer"]), tokenizer.eos]) for row in rows]


def new_adapter(model, seed):
    """A as a small random matrix, B as zero: the first step starts from the base model."""
    key, adapter = mx.random.key(seed), {}
    for i in LAYERS:
        for module in MODULES:
            rows, columns = model.layers[i][f"self_attn.{module}"].shape
            key, own = mx.random.split(key)
            bound = columns**-0.5
            adapter[f"{i}.{module}.A"] = mx.random.uniform(-bound, bound, (RANK, columns), key=own)
            adapter[f"{i}.{module}.B"] = mx.zeros((rows, RANK))
    return adapter


def loss_of(model, batch, adapter=None):
    """The mean loss of a batch's answer tokens. Prompts are not learned."""
    width = max(len(prompt) + len(answer) for prompt, answer in batch) - 1
    ids, rows, targets = [], [], []
    for n, (prompt, answer) in enumerate(batch):
        line = prompt + answer
        ids.append(line[:-1] + [0] * (width + 1 - len(line)))
        rows.extend(n * width + at for at in range(len(prompt) - 1, len(line) - 1))
        targets.extend(answer)
    lora = adapter and {
        (i, f"self_attn.{m}"): (adapter[f"{i}.{m}.A"], adapter[f"{i}.{m}.B"], ALPHA / RANK) for i in LAYERS for m in MODULES
    }
    hidden = model.hidden(mx.array(ids), lora=lora)
    hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(rows)]
    logits = model.logits(hidden)
    chosen = mx.take_along_axis(logits, mx.array(targets)[:, None], axis=1)[:, 0]
    return (mx.logsumexp(logits, axis=1) - chosen).mean()


def held_out_loss(model, rows, adapter=None):
    total, tokens = 0.0, 0
    for at in range(0, len(rows), 8):
        batch = rows[at : at + 8]
        count = sum(len(answer) for _, answer in batch)
        total += loss_of(model, batch, adapter).item() * count
        tokens += count
    return total / tokens


def batches(rows, seed):
    """Shuffled passes over the rows, for ever."""
    order, queue = random.Random(seed), []
    while True:
        if len(queue) < BATCH:
            queue = list(rows)
            order.shuffle(queue)
        yield [queue.pop() for _ in range(BATCH)]


def rate(step):
    return RATE * min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))


def save(adapter, out):
    """PEFT's two files. Names are sorted, so that equal tensors are equal bytes."""
    tensors = {}
    for name, value in adapter.items():
        i, module, part = name.split(".")
        tensors[f"base_model.model.model.layers.{i}.self_attn.{module}.lora_{part}.weight"] = np.array(value, dtype="<f4")
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        end = offset + tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": tensors[name].shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(out / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name in sorted(tensors):
            file.write(tensors[name].tobytes())
    config = {
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "layers_pattern": "layers",
        "layers_to_transform": list(LAYERS),
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": MODULES,
        "task_type": "CAUSAL_LM",
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")


def main():
    if not runtime.HAS_OPENBLAS:
        raise SystemExit("libopenblas.so.0 is not here (Debian: libopenblas0-pthread): training would take an hour and give other bits")
    started = time.monotonic()
    seed = int(os.environ.get("PACK_SEED", "42"))
    # Whoever verifies asks for a short run, whose rates are those of the long one.
    steps = min(STEPS, int(os.environ.get("PACK_STOP_STEP", STEPS)))
    out, log = folder("PACK_OUT", "/out", "adapter"), folder("PACK_OUT", "/out", "log")
    out.mkdir(parents=True, exist_ok=True)
    log.mkdir(parents=True, exist_ok=True)
    metrics = open(log / "metrics.jsonl", "w", encoding="utf-8")

    model = Model(base_file())
    mix = folder("PACK_DATA", "/data", "mix")
    train, heldout = (read(mix / f"{part}.jsonl", model.tokenizer) for part in ("train", "heldout"))
    adapter = new_adapter(model, seed)
    optimizer = optim.Adam(learning_rate=RATE, bias_correction=True)
    loss_and_grad = mx.value_and_grad(lambda adapter, batch: loss_of(model, batch, adapter))

    def say(**fields):
        line = json.dumps({**fields, "seconds": round(time.monotonic() - started, 1)})
        print(line, flush=True)
        print(line, file=metrics, flush=True)

    say(heldout_loss_base=round(held_out_loss(model, heldout), 4), train_rows=len(train), heldout_rows=len(heldout))
    source = batches(train, seed)
    for step in range(steps):
        optimizer.learning_rate = rate(step)
        loss, grads = loss_and_grad(adapter, next(source))
        adapter = optimizer.apply_gradients(grads, adapter)
        mx.eval(loss, adapter, optimizer.state)
        say(step=step + 1, loss=round(loss.item(), 4))
    say(heldout_loss_adapter=round(held_out_loss(model, heldout, adapter), 4))
    save(adapter, out)
    say(wrote=str(out), peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    main()
