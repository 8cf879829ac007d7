#!/usr/bin/env bash
# The sources' speed: wheels to layers, the QLoRA set, locking again, and the Hub, each beside the same by hand.
# Usage: benches/sources.sh [WORKDIR] [PART...]   parts: nine qlora lock hub cache; all of them unless named
# Needs: a release build, uv on PATH, python3.11, pip's or uv's own settings for an index, openssl, curl, zstd, jq,
# buildah (root), GNU time; 25 GB of disk. Figures go into docs/performance.md by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
pack=${PACK:-$here/target/release/pack}
work=${1:-$(mktemp -d)}
shift || true
parts=${*:-nine qlora lock hub cache}
mkdir -p "$work"
cd "$work"
export HOME=$work/home PACK_STORE=$work/store TMPDIR=$work NO_PROXY=127.0.0.1
mkdir -p home

# seconds and peak KiB of a command, into $t and $m
run() {
  sync
  command time -f '%e %M' -o .time "$@" > .out 2> .err || { cat .err; exit 1; }
  read -r t m < .time
}
row() { printf '| %-72s | %7s s | %6s MiB |\n' "$1" "$2" "$(($3 / 1024))"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
manifest() { # NAME, more lines on standard input
  mkdir -p "$1"
  { printf '[submission]\nname = "%s"\ncompetition = "neurips-2023-llm-efficiency"\ntrack = "rtx4090"\n' "$1"
    cat
    printf '[code]\npath = "."\n[serve]\ncommand = ["python", "serve.py"]\n'
  } > "$1/pack.toml"
  echo 'print(1)' > "$1/serve.py"
}
python_layers() { # PROJECT: forgets the blobs of its Python layers, so that they must be made again
  "$pack" image ls --json "$1/image" | jq -r '.[0].layers[] | select(.name | startswith("python")) | .digest' |
    while read -r digest; do rm -f "store/blobs/sha256/${digest#sha256:}"; done
  rm -rf "$1/image"
}

# Nine wheels of 278 MB, 986 MB unpacked. Both sides have the wheels at hand and nothing unpacked.
nine() {
  printf '%s\n' numpy==2.2.6 scipy==1.15.3 pandas==2.3.3 pyarrow==21.0.0 scikit-learn==1.7.2 llvmlite==0.45.1 \
    jaxlib==0.7.1 transformers==4.57.1 matplotlib==3.10.7 > nine.txt
  manifest nine <<'TOML'
[system]
debian = "bookworm"
packages = ["python3.11"]
[python]
version = "3.11"
requirements = "pylock.toml"
TOML
  uv pip compile -q --no-deps --python-version 3.11 --python-platform x86_64-manylinux_2_36 --format pylock.toml \
    --no-header -o nine/pylock.toml nine.txt
  "$pack" lock -q nine > .out
  "$pack" build -q nine > .out
  mkdir -p wheels
  awk '/^file = ".*\.whl"/ { gsub(/"/, "", $3); file = $3 } /^digest = / && file { gsub(/"|sha256:/, "", $3); print $3, file; file = "" }' \
    nine/pack.lock | while read -r hex file; do ln -f "store/blobs/sha256/$hex" "wheels/$file"; done
  for round in 1 2 3; do
    rm -rf target uvcold layer.tar.zst
    run sh -c 'uv pip install -q --no-deps --no-index --find-links wheels -r nine.txt --python python3.11 --target target \
      --link-mode copy --cache-dir uvcold && tar -cf - target | zstd -q -3 -T2 -f -o layer.tar.zst'
    row "9 wheels: uv pip install --target, tar | zstd -3 -T2 (round $round)" "$t" "$m"; hand=$t
    python_layers nine
    run "$pack" build -q nine
    row "9 wheels: pack build, the Python layers anew (round $round)" "$t" "$m"
    echo "pack / by hand: $(ratio "$t" "$hand")"
  done
  rm -rf target uvcold layer.tar.zst wheels
}

qlora_project() {
  [ -d qlora ] && return
  "$pack" init -q --template qlora-4090 qlora > .out
  mkdir -p qlora/base
  echo '{}' > qlora/base/config.json
  # The speed of the wheels is asked, so any base will do.
  sed -i '/^hf = "mistralai/,/^files = /c path = "base"\nrepo = "org/base"' qlora/pack.toml
  "$pack" lock -q qlora > .out
}

qlora() {
  qlora_project
  run "$pack" build -q --image train qlora
  row 'qlora-4090: pack build, first' "$t" "$m"
  rm -rf tars; mkdir tars
  "$pack" image ls --json qlora/image | jq -r '.[0].layers[].digest' | while read -r digest; do
    zstd -q -dc "qlora/image/blobs/sha256/${digest#sha256:}" > "tars/${digest#sha256:}"
  done
  size=$(du -cb tars/* | tail -1 | cut -f1)
  cat tars/* > /dev/null
  run bash -c 'for tar in tars/*; do tee >(openssl sha256 > .one) < $tar | zstd -q -3 -T2 | tee hand.zst | openssl sha256 > .two; done'
  row 'qlora-4090: the same tars hashed, zstd -3 -T2, hashed, by hand' "$t" "$m"; hand=$t
  run bash -c 'ls tars/* | xargs -P2 -n1 openssl sha256'
  row 'qlora-4090: the same tars hashed alone, two at once' "$t" "$m"
  rm -rf tars hand.zst qlora/image
  run "$pack" build -q --no-cache --image train qlora
  row 'qlora-4090: pack build, wheels in the store, all layers and the layout anew' "$t" "$m"
  echo "pack / by hand: $(ratio "$t" "$hand"), $(awk -v s="$size" -v t="$t" 'BEGIN { printf "%.0f MB/s", s / t / 1e6 }') of $size bytes"
  if command -v buildah > /dev/null; then
    uv pip install -q --python python3.11 --target warm --cache-dir uvwarm -r qlora/requirements.txt
    rm -rf warm
    b=(buildah --root "$work/bu/root" --runroot "$work/bu/run")
    container=$("${b[@]}" from scratch)
    root=$("${b[@]}" mount "$container")
    mkdir -p "$root/opt/venv/lib"
    run uv pip install -q --offline --python python3.11 --target "$root/opt/venv/lib" --link-mode copy --cache-dir uvwarm -r qlora/requirements.txt
    row 'qlora-4090: uv pip install, everything in its cache' "$t" "$m"
    run "${b[@]}" commit -q --disable-compression=false "$container" oci:"$work/bulayout":x
    row 'qlora-4090: buildah commit of that (no system, gzip)' "$t" "$m"
    "${b[@]}" rm -a > .out
    rm -rf bu bulayout uvwarm
  fi
}

lock() {
  qlora_project
  for version in 2.2.5 2.2.6 2.2.5 2.2.6; do
    sed -i "s/^numpy==.*/numpy==$version/" qlora/requirements.txt
    run "$pack" lock -q qlora
    row "pack lock, 62 packages, numpy to $version" "$t" "$m"
  done
  run "$pack" lock -q qlora
  row 'pack lock, nothing changed' "$t" "$m"
}

# Two GiB that do not compress, served by hub.py.
serve() {
  [ -f weights.bin ] || openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2> /dev/null | head -c $((2 << 30)) > weights.bin || true
  openssl sha256 -r weights.bin > weights.sha256
  manifest large <<< $'[models.base]\nhf = "bench/large"'
  python3 "$here/benches/hub.py" . 8091 &
  server=$!
  trap 'kill $server' EXIT
  export HF_ENDPOINT=http://127.0.0.1:8091
  sleep 1
}

hub() {
  serve
  url=http://127.0.0.1:8091/bench/large/resolve/main/weights.bin
  for round in 1 2 3; do
    # First touch of the page cache is dear: the file written here warms it up for both.
    run bash -c "curl -s --noproxy '*' $url | tee copy.bin | openssl sha256"
    row "hf, 2 GiB: curl | tee FILE | openssl sha256 (round $round)" "$t" "$m"
    rm -f copy.bin
    run bash -c "curl -s --noproxy '*' $url | openssl sha256"
    row "hf, 2 GiB: curl | openssl sha256, no copy written (round $round)" "$t" "$m"; hand=$t
    rm -rf store/blobs/sha256/* large/pack.lock
    run "$pack" lock -q large
    row "hf, 2 GiB: pack lock, 8 connections, written and hashed (round $round)" "$t" "$m"
    echo "curl / pack: $(ratio "$hand" "$t")"
  done
  kill "$server"
  trap - EXIT
}

cache() {
  serve
  "$pack" lock -q large > .out
  folder=home/.cache/huggingface/hub/models--bench--large
  mkdir -p $folder/blobs $folder/snapshots
  ln -f weights.bin "$folder/blobs/$(cut -d' ' -f1 weights.sha256)"
  rm -rf store/blobs/sha256/* home/.cache/pack-memory
  run openssl sha256 weights.bin
  row 'Hub cache, 2 GiB: openssl sha256' "$t" "$m"
  before=$(du -s . | cut -f1)
  run "$pack" fetch -q large
  after=$(du -s . | cut -f1)
  row 'Hub cache, 2 GiB: pack fetch' "$t" "$m"
  echo "more on the disk: $((after - before)) KiB"
  kill "$server"
  trap - EXIT
}

echo '| what | time | peak memory |'
echo '|---|---|---|'
for part in $parts; do $part; done
