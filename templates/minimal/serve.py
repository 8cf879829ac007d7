"""Answer the evaluation contract without a model: a token is a character, and an answer is the prompt again."""

import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 80
LARGEST_BODY = 16 << 20


class BadRequest(Exception):
    def __init__(self, field, message):
        super().__init__(message)
        self.detail = [{"loc": ["body", field] if field else ["body"], "msg": message, "type": "value_error"}]


def field(body, name, kind, default=None):
    """One field of a request, or its default. Fields nobody asks for are left alone: evaluation clients send many."""
    value = body.get(name, default)
    if name not in body and default is None:
        raise BadRequest(name, "field required")
    # In Python True is an int, too.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadRequest(name, f"value is not of type {kind.__name__}")
    if kind is int and value < 0:
        raise BadRequest(name, "value is less than 0")
    return value


def process(body):
    prompt = field(body, "prompt", str)
    answer = prompt[: field(body, "max_new_tokens", int, 50)]
    shown = prompt + answer if field(body, "echo_prompt", bool, False) else answer
    tokens = [{"text": token, "logprob": 0.0, "top_logprob": {token: 0.0}} for token in shown]
    return {"text": shown, "tokens": tokens, "logprob": 0.0}


def tokenize(body):
    tokens = [ord(character) for character in field(body, "text", str)]
    length = field(body, "max_length", int, 2048)
    return {"tokens": tokens[:length] if field(body, "truncation", bool, True) else tokens}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

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
        work = {"/process": process, "/tokenize": tokenize}.get(self.path)
        if work is None:
            return self.answer(404, {"detail": "not found"})
        try:
            reply = work(parse(data))
        except BadRequest as error:
            return self.answer(422, {"detail": error.detail})
        self.answer(200, {**reply, "request_time": time.perf_counter() - started})

    def answer(self, status, reply):
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def parse(data):
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest(None, "body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest(None, "body is not an object")
    return body


def main():
    # The first process of a container ignores what it does not handle, so a stop would take until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    server.daemon_threads = True
    print(f"listening on port {PORT}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
