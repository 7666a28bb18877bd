#!/usr/bin/env bash
# style.sh DLC: what the layers promise, read from the sources. Prints every breach; exit status 1 if there is one.
set -u
cd "$(dirname "$0")/.."
dlc=${1:-build/dlc}
breaches=$(mktemp)
trap 'rm -f "$breaches"' EXIT
sources() { find "$@" -type f \( -name '*.c' -o -name '*.cc' -o -name '*.h' -o -name '*.def' \) | sort; }
say() { tee -a "$breaches"; }

# ---- layers by include: ir <- passes <- codegen <- frontend; runtime stands alone, but its contract dlc.h may be read ----
may_include() {  # folder: the folders whose headers it may include
  case $1 in
    ir) echo ir ;;
    passes) echo ir passes ;;
    codegen) echo ir passes codegen runtime ;;
    frontend) echo ir passes codegen frontend runtime ;;
    runtime) echo runtime ;;
  esac
}
for folder in ir passes codegen frontend runtime; do
  [ -d $folder ] || continue
  allowed=" $(may_include $folder) "
  sources $folder | while read -r file; do
    sed -nE 's/^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">].*/\1/p' "$file" | while read -r header; do
      path=$(realpath -m --relative-to=. "$(dirname "$file")/$header")
      case $allowed in *" ${path%%/*} "*) ;; *) [ -e "$path" ] && echo "$file includes $header: not a layer below" ;; esac
    done
  done
done | say

# ---- foreign headers stand in one file each ----
one_file() {  # pattern, what, least, most
  local files n
  files=$(sources ir passes codegen frontend runtime | xargs grep -lE "^[ 	]*#[ 	]*include[ 	]*[<\"]($1)" /dev/null | tr '\n' ' ')
  n=$(echo "$files" | wc -w)
  { [ "$n" -ge "$3" ] && [ "$n" -le "$4" ]; } || echo "$2 headers are included by $n files: $files"
}
{
  one_file 'llvm-c/' LLVM 1 1
  one_file 'lld/|llvm/' 'LLD C++' 1 1
  one_file '[^">]*(protobuf-c|pb-c)' protobuf 1 1
  one_file 'nvrtc' NVRTC 0 1
  one_file 'cuda' CUDA 0 1
} | say

# ---- codegen names no operator of ONNX: neither as a string nor as an identifier's tail ("Conv", emit_conv) ----
names=$("$dlc" ops | awk '/opset/ { n = split($1, part, "."); print part[n] }')
[ -n "$names" ] || echo "$dlc ops lists no operators" | say
common=' Abs Add And Cast Ceil Div Equal Exp Floor Greater If Less Log Loop Max Min Mod Mul Neg Not Or Pow Round Sign'
common="$common Sin Cos Split Sqrt Sub Sum Tan Where Xor Identity Constant Shape Size "   # words of expressions and of C as well
for name in $names; do
  sources codegen | xargs grep -nE "\"$name\"" /dev/null | sed "s/$/   (operator $name)/"
  case $common in *" $name "*) continue ;; esac
  sources codegen | xargs grep -niwE "\"$name\"|(op|emit|is|lower|gen|rule)_$name|${name}_(op|emit|lower|gen|rule)" /dev/null |
    sed "s/$/   (operator $name)/"
done | say
sources codegen | xargs grep -nE '\bop_(find|at|infer|compute|attr[a-z_]*)\(|->op->' /dev/null | sed 's/$/   (codegen asks about operators)/' | say
sources ir | xargs grep -niE 'x86|avx|aarch64|\bneon\b|cuda|nvptx' /dev/null | sed 's/$/   (ir names a target)/' | say

# ---- the look of files: 120 columns are the aim, these the limit; a row of a table is one line ----
all=$(sources ir passes codegen frontend runtime tests examples; ls tests/*.sh tests/cli/* Makefile Makefile.inc 2>/dev/null)
for file in $all; do
  case $file in *.def) limit=200 ;; *) limit=170 ;; esac
  awk -v limit=$limit 'length($0) > limit { print FILENAME ":" FNR ": " length($0) " columns" }' "$file"
  lines=$(wc -l < "$file")
  [ "$lines" -le 1000 ] || echo "$file: $lines lines"
  case $file in *.c|*.cc|*.h|*.def) grep -nE $'\t| +$' "$file" | sed "s|^|$file: tab or trailing blank: |" | head -3 ;; esac
done | say
grep -nE '\b(TO''DO|FIX''ME|XX''X)\b' $all /dev/null | say

[ ! -s "$breaches" ]
