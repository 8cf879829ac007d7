"""SmolLM2's tokenizer, from the vocabulary and merges in the GGUF file: byte-level BPE, every digit on its own."""

import functools
import heapq
import re
import unicodedata

SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# GPT-2's pattern without its digits, which are split off before: `[^\W\d_]` then means a letter.
PIECE = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?(?:[^{SPACE}\w]|_)+|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+")
CONTROL = 3  # the token type of <|im_start|> and its like


def byte_letters():
    """GPT-2's printable letter for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(plain))
    return letters


def pieces(text):
    """The pieces that are never merged across: words with the space before them, runs of signs, and single digits."""
    start = 0
    for at, char in enumerate(text):
        if unicodedata.category(char)[0] == "N":
            yield from PIECE.findall(text[start:at])
            yield char
            start = at + 1
    yield from PIECE.findall(text[start:])


class Tokenizer:
    def __init__(self, metadata):
        self.tokens = metadata["tokenizer.ggml.tokens"]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
        self.letters = byte_letters()
        self.bytes = {letter: byte for byte, letter in self.letters.items()}
        types = metadata["tokenizer.ggml.token_type"].tolist()
        self.controls = {token: i for i, token in enumerate(self.tokens) if types[i] == CONTROL}
        longest_first = sorted(self.controls, key=len, reverse=True)
        self.control = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self.eos = int(metadata["tokenizer.ggml.eos_token_id"].item())
        self.bpe = functools.lru_cache(maxsize=65536)(self._bpe)

    def encode(self, text):
        ids = []
        for part in self.control.split(text):
            if part in self.controls:
                ids.append(self.controls[part])
                continue
            for piece in pieces(part):
                ids.extend(self.bpe(piece))
        return ids

    def decode(self, ids):
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, i):
        token = self.tokens[i]
        if token in self.controls:
            return token.encode()
        return bytes(self.bytes[letter] for letter in token)

    def _bpe(self, piece):
        """Merge the best-ranked neighbours first, leftmost on a tie. A heap keeps a very long piece from being slow."""
        parts = [self.letters[byte] for byte in piece.encode("utf-8", errors="replace")]
        after = list(range(1, len(parts) + 1))
        before = list(range(-1, len(parts) - 1))
        heap = []

        def offer(left):
            right = after[left]
            if right < len(parts):
                rank = self.ranks.get((parts[left], parts[right]))
                if rank is not None:
                    heapq.heappush(heap, (rank, left, parts[left], parts[right]))

        for left in range(len(parts)):
            offer(left)
        while heap:
            _, left, a, b = heapq.heappop(heap)
            right = after[left]
            if parts[left] != a or right >= len(parts) or parts[right] != b:
                continue  # one of the two was merged meanwhile
            parts[left], parts[right] = a + b, None
            after[left] = after[right]
            if after[right] < len(parts):
                before[after[right]] = left
            if before[left] >= 0:
                offer(before[left])
            offer(left)
        return tuple(self.ids[part] for part in parts if part in self.ids)
