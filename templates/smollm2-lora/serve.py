"""Answer the evaluation contract: POST /process and POST /tokenize; GET / says that the server is up."""

import argparse
import json
import math
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import runtime
from model import Model, base_file, folder

import mlx.core as mx
import numpy as np

LARGEST_BODY = 16 << 20
LONGEST = 2048  # tokens of an answer
CONTEXT = 4096  # tokens of prompt and answer together; of a longer prompt the end is kept
CHUNK = 256  # positions of a prompt that are read at once


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
    return value


class Engine:
    """The model, and what the two endpoints do with it. Used from one thread only."""

    def __init__(self, adapters):
        self.model = Model(base_file())
        for name in adapters:
            self.model.merge(folder("PACK_WEIGHTS", "/weights", name))
        self.tokenizer = self.model.tokenizer
        self.step(np.array([self.tokenizer.eos]), None)  # the first request should not pay for warming up

    def tokenize(self, body):
        text = field(body, "text", str)
        truncation = field(body, "truncation", bool, True)
        length = field(body, "max_length", int, 2048, least=0)
        tokens = self.tokenizer.encode(text)
        return {"tokens": tokens[:length] if truncation else tokens}

    def process(self, body):
        prompt = field(body, "prompt", str)
        field(body, "num_samples", int, 1, least=1)  # the answer has room for one
        wanted = field(body, "max_new_tokens", int, 50, least=0)
        top_k = field(body, "top_k", int, 200, least=1)
        temperature = field(body, "temperature", float, 0.8, least=0)
        # Without a seed the same question gets the same answer: this server is there to be checked.
        seed = field(body, "seed", int, 0, optional=True)
        echo = field(body, "echo_prompt", bool, False, optional=True)

        wanted = min(wanted, LONGEST)
        ids = self.tokenizer.encode(prompt)[-(CONTEXT - wanted) :] or [self.tokenizer.eos]
        cache = [None] * self.model.config.layers
        scored, last = self.read(ids, cache, echo and prompt)
        random = np.random.default_rng(abs(seed))
        answer = []
        while len(answer) < wanted:
            logprobs = log_softmax(last)
            token = sample(logprobs, top_k, temperature, random)
            if token == self.tokenizer.eos:
                break
            answer.append(token)
            scored.append(self.entry(token, logprobs))
            if len(answer) < wanted:
                last = self.step(np.array([token]), cache)[-1]
        return {
            "text": (prompt if echo else "") + self.tokenizer.decode(answer),
            "tokens": scored,
            "logprob": math.fsum(entry["logprob"] for entry in scored),
        }

    def read(self, ids, cache, score):
        """Read a prompt. Returns its tokens with their log-probabilities, if asked for, and the logits after it."""
        # Nothing comes before the first token, so nothing predicts it.
        scored = [self.entry(ids[0], None)] if score else []
        for at in range(0, len(ids), CHUNK):
            hidden = self.model.hidden(mx.array([ids[at : at + CHUNK]]), cache)[0]
            mx.eval(hidden, cache)
            if score:
                for token, logits in zip(ids[at + 1 : at + 1 + CHUNK], self.numbers(hidden)):
                    scored.append(self.entry(token, log_softmax(logits)))
        return scored, self.numbers(hidden[-1:])[0]

    def step(self, ids, cache):
        return self.numbers(self.model.hidden(mx.array([ids.tolist()]), cache)[0])

    def numbers(self, hidden):
        return np.array(self.model.logits(hidden))

    def entry(self, token, logprobs):
        best = token if logprobs is None else int(logprobs.argmax())
        value = [0.0 if logprobs is None else float(logprobs[i]) for i in (token, best)]
        decode = self.tokenizer.decode
        return {"text": decode([token]), "logprob": value[0], "top_logprob": {decode([best]): value[1]}}


def log_softmax(logits):
    """In double precision, so that no log-probability is infinite."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def sample(logprobs, top_k, temperature, random):
    if temperature < 1e-5:  # evaluation clients send 1e-7 for zero
        return int(logprobs.argmax())
    best = np.argsort(-logprobs, kind="stable")[:top_k]
    weights = np.exp((logprobs[best] - logprobs[best[0]]) / temperature)
    return int(random.choice(best, p=weights / weights.sum()))


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
        except BadRequest as error:
            return self.answer(422, {"detail": error.detail})
        except Exception as error:  # one bad prompt must not end the evaluation
            self.log_error("%s failed: %r", self.path, error)
            return self.answer(500, {"detail": "internal error"})
        self.answer(200, {**reply, "request_time": time.perf_counter() - started})

    def answer(self, status, reply):
        data = json.dumps(reply, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


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

    def __init__(self, address, adapters):
        self.worker = ThreadPoolExecutor(max_workers=1)  # mlx keeps its streams by thread
        self.engine = self.worker.submit(Engine, adapters).result()
        super().__init__(address, Handler)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("adapters", nargs="*", default=["adapter"], help="names under the weights folder")
    options = parser.parse_args()
    if not runtime.HAS_OPENBLAS:
        print("libopenblas.so.0 is not here (Debian: libopenblas0-pthread): answers will be slow", flush=True)
    # The first process of a container ignores what it does not handle, so a stop would take until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server((options.host, options.port), options.adapters)
    print(f"listening on {options.host}:{options.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
