#!/usr/bin/env bash
# How fast `pack verify --replay none` is beside hashing once and building once, and what a replay adds on disk.
# Usage: benches/verify.sh [WORKDIR]     needs: a release build, openssl, busybox-static, GNU time, 20 GB of disk
# Figures go into docs/performance.md by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
pack=${PACK:-$here/target/release/pack}
work=${1:-$(mktemp -d)}
mkdir -p "$work"
export PACK_STORE=$work/store HOME=$work
cd "$work"
GB=${GB:-3}

run() { # seconds and peak KiB of a command, into $t and $m; its exit code may be 1: a verdict is partial here
  /usr/bin/time -f '%e %M' -o "$work/.time" "$@" >"$work/.out" 2>"$work/.err" || [ $? = 1 ] || { cat "$work/.err"; exit 1; }
  read -r t m < <(tail -n 1 "$work/.time")
}
row() { printf '| %-58s | %7s s | %6s MiB |\n' "$1" "$2" "$(($3 / 1024))"; }
ratio() { awk -v a="$1" -v b="$2" -v c="${3:-0}" 'BEGIN { printf "%.2f", a / (b + c) }'; }

mkdir -p one/model
cat > one/pack.toml <<'TOML'
[submission]
name = "bench"
competition = "cpu-tabular-example"
track = "cpu"
[models.base]
path = "model"
[code]
path = "."
[serve]
command = ["python", "serve.py"]
TOML
echo 'print(1)' > one/serve.py
openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c $((GB * 1000000000)) > one/model/weights.bin || true
"$pack" lock one > /dev/null 2>&1
cat one/model/weights.bin > warm.bin; cat warm.bin > /dev/null; rm warm.bin; sync

echo '| what | time | peak memory |'
echo '|---|---|---|'
run openssl sha256 one/model/weights.bin; row "openssl sha256, $GB GB" "$t" "$m"; hash=$t
run "$pack" build one; sync; rm -rf one/image; run "$pack" build --no-cache one; row 'pack build --no-cache, layout anew' "$t" "$m"; build=$t
run "$pack" verify --replay none one; row 'pack verify --replay none, with the layout as the claim' "$t" "$m"; verify=$t
grep -E '^(inputs|image)' .out
rm -rf one/image
run "$pack" verify --replay none one; row 'pack verify --replay none, nothing claimed' "$t" "$m"; bare=$t
echo
echo "verify / (hash once + build once): $(ratio "$verify" "$hash" "$build") with a claimed layout, $(ratio "$bare" "$hash" "$build") without"

# A replay of a step that reads all of a model: the memory of `pack` itself, of every process of it, and the most that lies on the disk.
mkdir -p replay/model
cp "$(command -v busybox)" replay/busybox
openssl enc -aes-128-ctr -nosalt -K 01 -iv 00 -in /dev/zero 2>/dev/null | head -c $((GB * 1000000000)) > replay/model/weights.bin || true
cat > replay/pack.toml <<'TOML'
[submission]
name = "replay"
competition = "cpu-tabular-example"
track = "cpu"
[models.base]
path = "model"
[code]
path = "busybox"
[steps.train]
command = ["/submission/busybox", "sh", "-c", "/submission/busybox sha256sum /models/base/weights.bin > /out/made/sum"]
inputs = ["base"]
outputs = { made = "data" }
TOML
"$pack" lock replay > /dev/null 2>&1
"$pack" train --project replay > /dev/null 2>&1
before=$(du -s --block-size=1000000 "$work" | cut -f1)
"$pack" verify --only training replay > .out 2> .err &
most_disk=$before most_memory=0
while kill -0 $! 2> /dev/null; do
  disk=$(du -s --block-size=1000000 "$work" 2> /dev/null | cut -f1) || true
  [ "${disk:-0}" -gt "$most_disk" ] && most_disk=$disk
  for process in $(pgrep -x pack || true); do
    memory=$(awk '/VmHWM/ { print $2 }' "/proc/$process/status" 2> /dev/null) || true
    [ "${memory:-0}" -gt "$most_memory" ] && most_memory=$memory
  done
  sleep 0.05
done
wait $! || [ $? = 1 ] || { cat .err; exit 1; }
grep -E '^  train' .out
echo "a replay that reads $GB GB: $((most_memory / 1024)) MiB in any process of pack, $((most_disk - before)) MB more on the disk than before"
