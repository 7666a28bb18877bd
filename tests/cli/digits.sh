#!/usr/bin/env bash
# digits.sh DLC: the example builds through Makefile.inc and classifies at least 97.5 % of the held-out digits.
set -eu
dlc=$(realpath "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/examples"
cp "$root/Makefile.inc" "$work"
cp -r "$root/examples/digits" "$work/examples"
make -s -C "$work/examples/digits" clean
make -s -C "$work/examples/digits" run DLC="$dlc" | tee "$work/log"
awk '/held-out digits right/ { found = 1; exit $1 < 0.975 * $3 } END { if (!found) exit 1 }' "$work/log"
