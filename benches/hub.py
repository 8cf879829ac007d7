"""A hub with one model of one large file, which serves ranges from the page cache. For benches/sources.sh only.

Usage: hub.py FOLDER PORT     FOLDER holds weights.bin and weights.sha256
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
LARGE = os.path.join(FOLDER, "weights.bin")
DIGEST = open(os.path.join(FOLDER, "weights.sha256")).read().split()[0]
SIZE = os.path.getsize(LARGE)
COMMIT = "1" * 40
ENTRY = {"type": "file", "path": "weights.bin", "size": SIZE, "oid": "2" * 40, "lfs": {"oid": DIGEST, "size": SIZE, "pointerSize": 134}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if "/resolve/" in path:
            return self.large()
        data = json.dumps({"id": "bench/large", "sha": COMMIT} if "/revision/" in path else [ENTRY]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def large(self):
        first, last = 0, SIZE - 1
        wanted = self.headers.get("Range")
        if wanted:
            a, b = wanted.removeprefix("bytes=").split("-")
            first, last = int(a), min(int(b or last), last)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{SIZE}")
        self.send_header("ETag", f'"{DIGEST}"')
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.flush()
        with open(LARGE, "rb") as file:
            at, left = first, last - first + 1
            while left:
                sent = os.sendfile(self.connection.fileno(), file.fileno(), at, min(left, 1 << 24))
                at, left = at + sent, left - sent


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
