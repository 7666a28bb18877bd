#!/usr/bin/env bash
# texts.sh DLC: what --dump-ir, --stop-after and --emit=graph,tir write is input again: it prints the same, and compiles to a library that is right.
set -u
dlc=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
digits=$here/../../examples/digits/digits.onnx
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
check() { "$@" > log.txt 2>&1 || fail "$*: $(tail -5 log.txt)"; }
refused() { # code, command ...
  local code=$1; shift
  "$@" > log.txt 2>&1 && fail "$*: accepted"
  grep -q "error\[$code\]" log.txt || fail "$*: no $code in: $(cat log.txt)"
}

# every dump prints the same when it is read back, and the library that it gives is right
check "$dlc" compile "$digits" -o digits.so --dump-ir=ir
[ "$(ls ir/*.ir | wc -l)" -ge 7 ] || fail "only $(ls ir)"
for text in ir/*.ir; do
  pass=$(basename "$text" .ir)
  pass=${pass#*-}
  case $pass in
    import) check "$dlc" compile "$text" --stop-after=simplify --dump-ir=again; again=again/00-import.ir ;;
    simplify) check "$dlc" compile "$text" -o again.graph --emit=graph; again=again.graph ;;
    *) check "$dlc" compile "$text" -o again.ir --stop-after="$pass"; again=again.ir ;;
  esac
  cmp -s <(grep -v '^data ' "$text") <(grep -v '^data ' "$again") || fail "$text is another text when read back"
  check "$dlc" compile "$text" -o from_text.so --name digits
  check "$dlc" compare from_text.so --ref interp "$digits" --dim N=3
done

# what else takes a graph takes its text
check "$dlc" compile "$digits" -o all.so --emit=so,graph,tir,ll,asm
for file in all.so all.h all.graph all.tir all.data all.ll all.s; do [ -s "$file" ] || fail "--emit: no $file"; done
check "$dlc" inspect all.graph
check "$dlc" compare --interp all.graph --ref interp "$digits" --dim N=2
refused E0202 "$dlc" inspect all.tir
check "$dlc" compile all.graph -o two.so --dim N=2
grep -q 'pixels f32\[2,1,8,8\]' log.txt || fail "--dim of a text: $(cat log.txt)"
check "$dlc" compare two.so --ref interp "$digits" --dim N=2
refused E0202 "$dlc" compile all.graph -o x.so --dim M=2
refused E0202 "$dlc" compile all.tir -o x.so --dim N=2
refused E0202 "$dlc" compile all.tir -o x.so --stop-after=fuse
refused E0202 "$dlc" compile "$digits" -o x.graph --emit=so,graph
"$dlc" compile "$digits" --stop-after=lower > lower.txt || fail "--stop-after on stdout"
grep -q '^module digits(.* after lower {$' lower.txt || fail "--stop-after: $(head -1 lower.txt)"

# texts and data that are not what they were
cp all.graph bad.graph
mv all.data kept
refused E0306 "$dlc" compile bad.graph -o x.so
head -c 1000 kept > all.data
refused E0305 "$dlc" compile bad.graph -o x.so
cp kept all.data; printf 'x' | dd of=all.data bs=1 seek=100 conv=notrunc status=none
refused E0309 "$dlc" compile bad.graph -o x.so
sed 's/"all.data"/"..\/all.data"/' all.graph > bad.graph
refused E0306 "$dlc" compile bad.graph -o x.so
sed 's/Relu(/Relux(/' all.graph > bad.graph
refused E0309 "$dlc" compile bad.graph -o x.so
grep -v '^  program' all.tir > bad.tir
refused E0309 "$dlc" compile bad.tir -o x.so
for part in 'zeroed [^ ]*' 'arena.* scratch [^ ]*'; do   # what emission needs to know
  sed "/^  memory/s/ $part//" all.tir > bad.tir
  cmp -s all.tir bad.tir && fail "no $part in all.tir"
  refused E0309 "$dlc" compile bad.tir -o x.so
done
sed 's/after memplan/after fuse/' all.tir > bad.tir
refused E0309 "$dlc" compile bad.tir -o x.so
[ -e x.so ] && fail "a library of a text that was refused"

if [ "$failures" = 0 ]; then echo "all texts are input again"; else exit 1; fi
