#!/usr/bin/env bash
# The spine's speed as ratios in one run, whole processes, with the bytes written and the peak memory of each.
# Usage: benches/spine.sh [WORKDIR]     needs: a release build, openssl, skopeo, GNU time, 12 GB of disk
# With SPARSE=1 also a 20 GiB sparse file (needs 45 GB of disk). Figures go into docs/performance.md by hand.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
pack=${PACK:-$here/target/release/pack}
work=${1:-$(mktemp -d)}
mkdir -p "$work"
export PACK_STORE=$work/store HOME=$work
cd "$work"

# seconds, peak KiB and KiB written of a command, into $t, $m and $w
run() {
  local before after
  before=$(awk '/^write_bytes/ {print $2}' /proc/$$/io)
  /usr/bin/time -f '%e %M %O' -o "$work/.time" "$@" >"$work/.out" 2>"$work/.err" || { cat "$work/.err"; exit 1; }
  read -r t m w < "$work/.time"
  w=$((w / 2))
}
row() { printf '| %-58s | %7s s | %6s MiB | %8s MiB |\n' "$1" "$2" "$(($3 / 1024))" "$(($4 / 1024))"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

project() { # DIR: a project with one weight file of its own
  mkdir -p "$1/model"
  cat > "$1/pack.toml" <<'TOML'
[submission]
name = "bench"
competition = "neurips-2023-llm-efficiency"
track = "rtx4090"
[models.base]
path = "model"
[code]
path = "."
[serve]
command = ["python", "serve.py"]
TOML
  echo 'print(1)' > "$1/serve.py"
}

project one
openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c $((2 << 30)) > one/model/weights.bin || true
# First touch of the page cache is dear: warm it up before measuring.
cat one/model/weights.bin > warm.bin; cat warm.bin > /dev/null; rm warm.bin; sync

echo '| what | time | peak memory | written |'
echo '|---|---|---|---|'
run sh -c 'tar -cf - one/model/weights.bin | openssl sha256 > floor.txt'; row 'tar | openssl sha256, digest to a file' "$t" "$m" "$w"; hashed=$t
run sh -c 'tar -cf - one/model/weights.bin | tee floor.tar | openssl sha256 > floor.txt'; row 'tar | tee FILE | openssl sha256' "$t" "$m" "$w"; floor=$t
rm -f floor.tar; sync
run "$pack" lock one; row 'pack lock, 2 GiB from path, cold store' "$t" "$m" "$w"; cold_lock=$t
du -sb --apparent-size store/blobs | awk '{printf "| store before a layout is written: %.3f of the weights | | | |\n", $1 / (2 * 1024^3)}'
run "$pack" build one; row 'pack build, first layout' "$t" "$m" "$w"; first=$t
rm -rf one/image; sync
run "$pack" build one; row 'pack build, store warm, layout anew' "$t" "$m" "$w"; warm=$t
run "$pack" lock one; row 'pack lock, nothing changed' "$t" "$m" "$w"
run "$pack" build one; row 'pack build, nothing changed' "$t" "$m" "$w"
echo 'print(2)' > one/serve.py
run "$pack" build one; row 'pack build, one line of code changed' "$t" "$m" "$w"
strace -f -e trace=openat,read -o trace.txt "$pack" build one > /dev/null 2>&1 || true
grep -c 'weights.bin' trace.txt > .opened || true
run skopeo copy oci:one/image:serve oci:copied:serve; row 'skopeo copy of the same layout' "$t" "$m" "$w"; skopeo=$t
echo
echo "warm build / tar | tee | openssl: $(ratio "$warm" "$floor")    cold lock + first build: $(ratio "$(awk -v a="$cold_lock" -v b="$first" 'BEGIN{print a+b}')" "$floor")    skopeo: $(ratio "$skopeo" "$floor")"
echo "warm build / tar | openssl (no copy written): $(ratio "$warm" "$hashed")"

if [ -n "${SPARSE:-}" ]; then
  project big
  truncate -s 20G big/model/weights.bin
  run "$pack" lock big; row 'pack lock, 20 GiB sparse file' "$t" "$m" "$w"
  run "$pack" build big; row 'pack build, 20 GiB sparse file' "$t" "$m" "$w"
fi
