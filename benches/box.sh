#!/usr/bin/env bash
# What the box costs: its start once layers are unpacked, and a computation of a minute in it beside the same bare.
# Usage: benches/box.sh [WORKDIR]     needs: a release build, busybox-static, jq; nothing else running on the machine
# SUMS=280 is the length in millions of sums (about a minute), ROUNDS=3 how often both are run in turn. Figures go into
# docs/performance.md by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
pack=${PACK:-$here/target/release/pack}
work=${1:-$(mktemp -d)}
sums=${SUMS:-280}
rounds=${ROUNDS:-3}
mkdir -p "$work/small/raw"
export PACK_STORE=$work/store HOME=$work
cd "$work/small"

cp "$(command -v busybox)" busybox
echo one > raw/a.txt
cat > pack.toml <<'TOML'
[submission]
name = "small"
competition = "cpu-tabular-example"
track = "cpu"
[data.raw]
path = "raw"
[code]
path = "."
[steps.try]
command = ["/submission/busybox", "true"]
inputs = ["raw"]
outputs = { made = "data" }
TOML
"$pack" -q lock > /dev/null

run() { "$pack" -q run --step try --json "$@"; }
run -- /submission/busybox true > /dev/null
echo "box made, run and gone, ms, 15 times: $(for _ in $(seq 15); do run -- /submission/busybox true | jq '.seconds * 1000 | round'; done | sort -n | xargs)"

# seconds of wall clock and of processor time, by the same `time` in both
program="BEGIN { for (i = 0; i < $sums * 1000000; i++) s += i % 7; print s }"
timed() { "$@" awk "$program" 2>&1 | awk 'NF == 3 { print $1, $2 + $3 }'; }
bare() { timed ./busybox time -f '%e %U %S' ./busybox; }
boxed() { timed "$pack" -q run --step try -- /submission/busybox time -f '%e %U %S' /submission/busybox; }
for _ in $(seq "$rounds"); do
  echo "bare $(bare)"
  echo "box  $(boxed)"
done | tee "$work/.rounds"
median() { awk -v w="$1" -v f="$2" '$1 == w { print $f }' "$work/.rounds" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="$(median box "$1")" -v b="$(median bare "$1")" 'BEGIN { printf "%+.2f %%", (a / b - 1) * 100 }'; }
echo "the box beside bare, medians: $(ratio 2) wall clock, $(ratio 3) processor time"
