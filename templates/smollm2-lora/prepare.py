"""Prepare the data: dictionary entries in, questions and answers for training and a held-out part out."""

import hashlib
import json
import os
import re
from pathlib import Path

ENTRY = re.compile(r"([A-Z'-]+), (?:n|v|adj|adv|v\.[ti])\.\s+(.+)", re.DOTALL)
LONGEST = 16  # words in an answer: one training must fit in a minute


def read_entries(text):
    for block in text.strip().split("\n\n"):
        match = ENTRY.fullmatch(block)
        if not match:
            raise SystemExit(f"not a dictionary entry: {block.splitlines()[0]!r}")
        yield match[1].lower(), " ".join(match[2].split())


def held_out(word):
    """One word in eight, whatever its place in the file."""
    return hashlib.sha256(word.encode()).digest()[0] % 8 == 0


def main():
    source = Path(os.environ.get("PACK_DATA", "/data")) / "dictionary" / "entries.txt"
    out = Path(os.environ.get("PACK_OUT", "/out")) / "mix"
    out.mkdir(parents=True, exist_ok=True)
    parts = {"train": [], "heldout": []}
    for word, definition in read_entries(source.read_text(encoding="utf-8")):
        if len(definition.split()) <= LONGEST:
            parts["heldout" if held_out(word) else "train"].append({"question": f"Define: {word}", "answer": definition})
    for name, rows in parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        print(f"{name}: {len(rows)} questions")


if __name__ == "__main__":
    main()
