"""Answer the evaluation contract: POST /process and POST /tokenize; GET / says that the server is up.

The base is loaded by its name on the Hub, from the offline cache in the image, in the 4 bits it was trained with.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

LARGEST_BODY = 16 << 20
LONGEST = 2048  # tokens of an answer
CONTEXT = 4096  # tokens of prompt and answer together; of a longer prompt the end is kept
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"
COMPUTE = torch.bfloat16 if ON_GPU else torch.float32


class BadRequest(Exception):
    def __init__(self, field, message):
        super().__init__(message)
        self.detail = [{"loc": ["body", field] if field else ["body"], "msg": message, "type": "value_error"}]


def field(body, name, kind, default=None, *, least=None, optional=False):
    """One field of a request, or its default. Fields nobody asks for are left alone: evaluation clients send many."""
    if name not in body:
        if default is None and not optional:
            raise BadRequest(name, "field required")
        return default
    value = body[name]
    if value is None and optional:
        return default
    if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BadRequest(name, "value is not finite")
        if kind is int and value != int(value):
            raise BadRequest(name, "value is not a whole number")
        if least is not None and value < least:
            raise BadRequest(name, f"value is less than {least}")
        return kind(value)
    if not isinstance(value, kind) or kind in (int, float):
        raise BadRequest(name, f"value is not of type {kind.__name__}")
    # JSON can hold halves of characters, which no tokenizer takes.
    return value.encode("utf-8", "replace").decode() if kind is str else value


class Engine:
    """The model, and what the two endpoints do with it. Used from one thread only."""

    def __init__(self, base, adapter):
        torch.set_num_threads(int(os.environ.get("PACK_THREADS", "1")))
        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=COMPUTE
        )
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=quantised, device_map={"": DEVICE}, dtype=COMPUTE, attn_implementation="sdpa"
        )
        self.model = PeftModel.from_pretrained(model, adapter).eval()
        self.end = self.tokenizer.eos_token_id

    def tokenize(self, body):
        text = field(body, "text", str)
        truncation = field(body, "truncation", bool, True)
        length = field(body, "max_length", int, 2048, least=0)
        tokens = self.tokenizer(text)["input_ids"]
        return {"tokens": tokens[:length] if truncation else tokens}

    @torch.inference_mode()
    def process(self, body):
        prompt = field(body, "prompt", str)
        field(body, "num_samples", int, 1, least=1)  # the answer has room for one
        wanted = min(field(body, "max_new_tokens", int, 50, least=0), LONGEST)
        top_k = field(body, "top_k", int, 200, least=1)
        temperature = field(body, "temperature", float, 0.8, least=0)
        # Without a seed the same question gets the same answer: this server is there to be checked.
        seed = field(body, "seed", int, 0, optional=True)
        echo = field(body, "echo_prompt", bool, False, optional=True)

        ids = self.tokenizer(prompt)["input_ids"][-(CONTEXT - wanted) :] or [self.end]
        scoring = bool(echo and prompt)
        reply = self.model(input_ids=torch.tensor([ids], device=DEVICE), use_cache=True, logits_to_keep=0 if scoring else 1)
        scored = []
        if scoring:
            # Nothing comes before the first token, so nothing predicts it.
            scored = [self.entry(ids[0], None)]
            scored += [self.entry(token, log_softmax(logits)) for token, logits in zip(ids[1:], reply.logits[0])]
        random = torch.Generator().manual_seed(abs(seed) % 2**63)  # any whole number is a seed
        last, answer = log_softmax(reply.logits[0, -1]), []
        while len(answer) < wanted:
            token = sample(last, top_k, temperature, random)
            if token == self.end:
                break
            answer.append(token)
            scored.append(self.entry(token, last))
            if len(answer) < wanted:
                reply = self.model(
                    input_ids=torch.tensor([[token]], device=DEVICE), past_key_values=reply.past_key_values, use_cache=True
                )
                last = log_softmax(reply.logits[0, -1])
        return {
            "text": (prompt if echo else "") + self.tokenizer.decode(answer, skip_special_tokens=True),
            "tokens": scored,
            "logprob": math.fsum(entry["logprob"] for entry in scored),
        }

    def entry(self, token, logprobs):
        best = token if logprobs is None else int(logprobs.argmax())
        value = [0.0 if logprobs is None else float(logprobs[i]) for i in (token, best)]
        decode = self.tokenizer.decode
        return {"text": decode([token]), "logprob": value[0], "top_logprob": {decode([best]): value[1]}}


def log_softmax(logits):
    """In double precision, so that no log-probability is infinite."""
    return logits.double().log_softmax(-1).cpu()


def sample(logprobs, top_k, temperature, random):
    if temperature < 1e-5:  # evaluation clients send 1e-7 for zero
        return int(logprobs.argmax())
    best = logprobs.topk(min(top_k, len(logprobs)))
    weights = ((best.values - best.values[0]) / temperature).exp()
    return int(best.indices[torch.multinomial(weights, 1, generator=random)])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 330

    def do_GET(self):
        if self.path == "/":
            self.answer(200, {"status": "ok"})
        else:
            self.answer(404, {"detail": "not found"})

    def do_POST(self):
        started = time.perf_counter()
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST_BODY:
            self.close_connection = True  # the body is still in the way
            return self.answer(413 if length > 0 else 411, {"detail": "a Content-Length of at most 16 MiB is needed"})
        data = self.rfile.read(length)
        work = {"/process": self.server.engine.process, "/tokenize": self.server.engine.tokenize}.get(self.path)
        if work is None:
            return self.answer(404, {"detail": "not found"})
        try:
            body = parse(data)
            reply = self.server.worker.submit(work, body).result()
            data = encode({**reply, "request_time": time.perf_counter() - started})
        except BadRequest as error:
            return self.answer(422, {"detail": error.detail})
        except Exception as error:  # one bad prompt must not end the evaluation
            self.log_error("%s failed: %r", self.path, error)
            return self.answer(500, {"detail": "internal error"})
        self.send(200, data)

    def answer(self, status, reply):
        self.send(status, encode(reply))

    def send(self, status, data):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def encode(reply):
    return json.dumps(reply, allow_nan=False).encode()


def parse(data):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    try:
        body = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise BadRequest(None, "body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest(None, "body is not an object")
    return body


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address, base, adapter):
        self.worker = ThreadPoolExecutor(max_workers=1)  # one request at a time: two would share the GPU's memory
        self.engine = self.worker.submit(Engine, base, adapter).result()
        super().__init__(address, Handler)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=80)
    named = os.environ.get("BASE")
    parser.add_argument("--base", default=named, required=not named, help="the base model's name on the Hub")
    options = parser.parse_args()
    # The first process of a container ignores what it does not handle, so a stop would take until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    adapter = Path(os.environ.get("PACK_WEIGHTS", "/weights")) / "adapter"
    server = Server((options.host, options.port), options.base, adapter)
    print(f"listening on {options.host}:{options.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
