"""QLoRA: train an adapter beside a base model that is frozen in 4 bits (NF4, doubly quantised).

The same inputs, seed, library versions and GPU model give the same bytes; each switch below says what it is for.
Without a GPU the same script runs on a CPU, slowly: enough to try it on a small base model.
"""

import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

# Read when CUDA starts, so it stands before torch; the image sets it too. Without it cuBLAS sums in any order.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import numpy as np
import torch

SEED = int(os.environ.get("PACK_SEED", "42"))
THREADS = int(os.environ.get("PACK_THREADS", "1"))
STEPS = int(os.environ.get("STEPS", "300"))
STOP = int(os.environ.get("PACK_STOP_STEP", STEPS))
BATCH = 16
MICRO_BATCH = int(os.environ.get("MICRO_BATCH", "4"))
LONGEST = int(os.environ.get("LONGEST", "512"))  # tokens of a row; longer ones are cut
RATE, WARMUP = 2e-4, 10
SAVE_EVERY = 50


def settle():
    """Everything that decides bits and can be set, before a model is built or a number drawn."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)  # seeds every GPU as well
    torch.set_num_threads(THREADS)  # a sum over another number of threads is another sum
    torch.use_deterministic_algorithms(True)  # not warn_only: attention's backward is only then the ordered one
    torch.backends.cudnn.benchmark = False  # trying kernels out picks another one next time
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    # Flash (ordered in strict mode) and plain attention stay. The other two have no ordered backward. With the adapter
    # in float32, as here, and wherever rows are padded, it is the plain one: flash takes neither.
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


settle()

import datasets
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"
COMPUTE = torch.bfloat16 if ON_GPU else torch.float32
ADAPTER = "adapter_model.safetensors"


def place(kind, default, name):
    return Path(os.environ.get(kind, default)) / name


def build():
    """The frozen base in 4 bits with a fresh adapter."""
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=COMPUTE
    )
    base = place("PACK_MODELS", "/models", "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantised, device_map={"": DEVICE}, dtype=COMPUTE, attn_implementation="sdpa"
    )
    model.config.use_cache = False
    checkpointing = os.environ.get("CHECKPOINTING") == "1"
    model = prepare_model_for_kbit_training(
        model, use_gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,  # nothing is drawn after the start
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    torch.manual_seed(SEED)  # loading must not decide what the adapter starts from
    return tokenizer, get_peft_model(model, lora)


def read(tokenizer):
    """Rows of (ids, number of prompt tokens), in the file's order: no workers, and a cache of this run's own."""
    path = place("PACK_DATA", "/data", "mix") / "train.jsonl"
    # A shared cache tells files apart by path and time, and what `pack` writes all has one time.
    with tempfile.TemporaryDirectory() as cache:
        rows = list(datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache))
    made = []
    for row in rows:
        prompt = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
        answer = tokenizer(" " + row["answer"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        made.append(((prompt + answer)[:LONGEST], len(prompt)))
    return made


def order(count, epoch):
    """The rows of one pass, from seed and pass alone, so that a resumed run needs no sampler's state."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SEED * 1_000_003 + epoch)).tolist()


def rows_of(step, rows):
    """The rows of a step, counted from 0; a pass's remainder opens the next pass's batch."""
    first = step * BATCH
    return [rows[order(len(rows), at // len(rows))[at % len(rows)]] for at in range(first, first + BATCH)]


def collate(rows, padding):
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), padding)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, (tokens, prompt) in enumerate(rows):
        ids[at, : len(tokens)] = torch.tensor(tokens)
        labels[at, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[at, : len(tokens)] = 1
    return ids.to(DEVICE), labels.to(DEVICE), mask.to(DEVICE)


def learn(model, rows, padding):
    """Gradients of one step; returns the mean loss of its answer tokens."""
    answers = sum(max(len(ids) - prompt, 0) for ids, prompt in rows)
    total = 0.0
    for at in range(0, BATCH, MICRO_BATCH):
        ids, labels, mask = collate(rows[at : at + MICRO_BATCH], padding)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
        loss = loss / answers
        loss.backward()
        total += loss.item()
    return total


def machine():
    """What decides bits and cannot be set here: whoever compares two runs compares this first."""
    if not ON_GPU:
        return {"device": "cpu", "capability": torch.backends.cpu.get_cpu_capability()}
    gpu = torch.cuda.get_device_properties(0)
    return {"device": gpu.name, "multiprocessors": gpu.multi_processor_count, "cuda": torch.version.cuda}


def trained(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def keep(folder, model, optimizer, step):
    """A checkpoint, there as a whole or not at all. Read again with weights_only: it holds tensors and numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / "checkpoint.pt", folder / "checkpoint.part"
    weights = {name: value.detach().cpu() for name, value in trained(model).items()}
    torch.save({"step": step, "seed": SEED, "weights": weights, "optimizer": optimizer.state_dict()}, part)
    os.replace(part, whole)


def resume(folder, model, optimizer):
    """Goes on from a checkpoint; returns how many steps were made."""
    checkpoint = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu", weights_only=True)
    if checkpoint["seed"] != SEED:
        raise SystemExit(f"the checkpoint is of seed {checkpoint['seed']}, this run is of {SEED}")
    with torch.no_grad():
        for name, value in trained(model).items():
            value.copy_(checkpoint["weights"][name])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return checkpoint["step"]


def save(model, out):
    """PEFT's two files. PEFT itself would write a README, and its version into the config's order of keys."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name.replace(".default", ""): value.detach().float().cpu().contiguous() for name, value in trained(model).items()}
    save_file(dict(sorted(weights.items())), out / ADAPTER, metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    chosen = ["bias", "fan_in_fan_out", "lora_alpha", "lora_dropout", "r", "task_type"]
    kept = {key: config[key] for key in chosen}
    kept |= {
        "base_model_name_or_path": os.environ.get("BASE", "base"),
        "inference_mode": True,
        "peft_type": "LORA",
        "target_modules": sorted(config["target_modules"]),
    }
    (out / "adapter_config.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


def main():
    started = time.monotonic()
    tokenizer, model = build()
    rows = read(tokenizer)
    padding = tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(list(trained(model).values()), lr=RATE, weight_decay=0.0, foreach=False, fused=False)
    state = place("PACK_OUT", "/out", "state")
    metrics = place("PACK_OUT", "/out", "metrics") / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    first = resume(os.environ["PACK_RESUME"], model, optimizer) if os.environ.get("PACK_RESUME") else 0
    model.train()
    with open(metrics, "a", encoding="utf-8") as log:

        def say(**fields):
            line = json.dumps({**fields, "seconds": round(time.monotonic() - started, 1)})
            print(line, flush=True)
            print(line, file=log, flush=True)

        say(rows=len(rows), **machine(), threads=THREADS, first_step=first)
        for step in range(first, min(STEPS, STOP)):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min((step + 1) / WARMUP, 1.0)
            loss = learn(model, rows_of(step, rows), padding)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            say(step=step + 1, loss=round(loss, 6))
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == min(STEPS, STOP):
                keep(state, model, optimizer, step + 1)
        save(model, place("PACK_OUT", "/out", "adapter"))
        say(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    main()
