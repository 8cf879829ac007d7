#!/usr/bin/env bash
# The speed of `pack check`: a model tensor by tensor against the rate of SHA-256, headers alone, a second check,
# and text. Usage: benches/check.sh [WORKDIR]     needs: a release build, python3, openssl, GNU time, disk for twice GIB
# GIB=6 is the size of the model, TEXT=1000 that of each of the two files of text, in MB. Figures go into docs/performance.md by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
pack=${PACK:-$here/target/release/pack}
work=${1:-$(mktemp -d)}
gib=${GIB:-6}
mb=${TEXT:-1000}
mkdir -p "$work"
export PACK_STORE=$work/store HOME=$work
cd "$work"

# seconds and peak KiB of a command, into $t and $m; what it says, into .out
run() {
  /usr/bin/time -f '%e %M' -o .time "$@" >.out 2>.err || { code=$?; [ "$code" = 1 ] || { cat .err; exit 1; }; }
  read -r t m < <(tail -1 .time)
}
row() { printf '| %s | %s s | %s MiB |\n' "$1" "$2" "$(($3 / 1024))"; }
rate() { awk -v b="$1" -v s="$2" 'BEGIN { printf "%.2f", b / s / 1e9 }'; }

mkdir -p full/model text/data
python3 - "$gib" "$mb" <<'PY'
# A model of Llama's form in shards of 1 GiB, of random finite numbers; each shard of its own bytes.
import json, os, struct, sys
gib, mb, mib = int(sys.argv[1]), int(sys.argv[2]), 1 << 20
base = bytearray(os.urandom(64 * mib))
for at in range(1, len(base), 2): base[at] &= 0x3f          # bf16 below 2: no exponent is all ones
per = 16                                                     # tensors of 64 MiB a shard
for shard in range(gib):
    header, offset = {}, 0
    for n in range(per):
        header[f"model.layers.{shard * per + n}.mlp.up_proj.weight"] = {"dtype": "BF16", "shape": [8192, 4096], "data_offsets": [offset, offset + 64 * mib]}
        offset += 64 * mib
    text = json.dumps(header).encode()
    with open(f"full/model/model-{shard + 1:05}-of-{gib:05}.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for n in range(per):
            base[:8] = struct.pack("<Q", (shard * per + n) & 0x3f3f)
            out.write(base)
open("full/model/config.json", "w").write('{"model_type": "llama"}')
line = '{"prompt": "What does a hare do in March?", "answer": "It runs across the fields as if it were mad, and boxes."}\n'
with open("text/data/train.jsonl", "w") as out:
    block = line * 10000
    for _ in range(mb * 1_000_000 // len(block)): out.write(block)
with open("text/data/one-line.jsonl", "w") as out:
    out.write('{"text": "')
    for _ in range(mb): out.write("x y z. " * 143_000)
    out.write('"}\n')
PY
printf 'print(1)\n' | tee full/serve.py > text/serve.py
cat > full/pack.toml <<'TOML'
[submission]
name = "full"
competition = "competition.toml"
track = "gpu"
[models.base]
path = "model"
repo = "mistralai/Mistral-7B-v0.1"
[code]
path = "serve.py"
TOML
sed -e 's/"full"/"text"/' -e 's/^\[models.base\]/[data.text]/' -e 's/^path = "model"/path = "data"/' -e '/^repo/d' full/pack.toml > text/pack.toml
cat > competition.toml <<'TOML'
name = "speed"
title = "Speed"
[tracks.gpu]
summary = "One GPU"
gpu-memory-gb = 24
disk-gb = 500
[[generators]]
models = ["gpt-4*"]
standing = "refused"
[[refused]]
model = "other/model"
tensors = [{ name = "a", dtype = "F32", shape = [1], sha256 = "1111111111111111111111111111111111111111111111111111111111111111" }]
TOML
cp competition.toml full/; cp competition.toml text/
"$pack" lock full >/dev/null 2>&1; "$pack" lock text >/dev/null 2>&1
rm -rf full/model
model=$((gib * 1024 * 1024 * 1024))
cores=$(nproc)
# What all cores together hash, each a shard of its own, read from the page cache as `pack` reads it.
mapfile -t shards < <(find store/blobs -type f -size +1000M -size -1030M | sort)
cat "${shards[@]}" > /dev/null
floor() {
  local n
  for n in $(seq 0 $((cores - 1))); do openssl dgst -sha256 "${shards[$n]}" > /dev/null & done
  wait
}
started=$(date +%s.%N); floor; ended=$(date +%s.%N)
rate=$(awk -v s="$started" -v e="$ended" -v c="$cores" 'BEGIN { printf "%.2f", c * 1.0737 / (e - s) }')
echo "SHA-256, $cores times \`openssl dgst\` at once: $rate GB/s"

forget() { rm -rf "$work"/.cache/pack-memory/*/cache/{seen-2,package-1,tensors-1}; }

echo '| what | time | peak memory |'
echo '|---|---|---|'
forget; run "$pack" check full --only base-approved; row "\`check --only base-approved\`, $gib GiB tensor by tensor, first" "$t" "$m"; tensors=$t
run "$pack" check full; row "\`check\`, all rules, again" "$t" "$m"
forget; run "$pack" check full --only weights-format --only weights-memory --only weights-fit; row "the rules on headers alone, nothing remembered" "$t" "$m"
forget; run "$pack" --jobs 1 check text --only no-secrets --only data-generated-text; row "\`check\`, two files of $mb MB of text on one core, first" "$t" "$m"; text=$t
run "$pack" check text; row "\`check\`, all rules, again" "$t" "$m"
echo
echo "by tensor: $(rate "$model" "$tensors") GB/s, $(awk -v b="$model" -v s="$tensors" -v r="$rate" 'BEGIN { printf "%.2f", b / s / 1e9 / r }') of what $cores cores hash"
echo "text: $(awk -v s="$text" -v m="$mb" 'BEGIN { printf "%.0f", 2 * m / s }') MB/s on one core"
