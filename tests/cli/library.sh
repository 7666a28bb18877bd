#!/usr/bin/env bash
# library.sh DLC: what a compiled library promises: names, imports, header, bytes, memory, contexts; run and compare on it.
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
python3 "$here/models.py" . || exit 1

# v3, since valgrind knows no AVX-512; symbolic N
check "$dlc" compile "$digits" -o digits.so --cpu x86-64-v3
check "$dlc" compile chain.onnx -o chain.so

# two names out, libc in, nothing else
[ "$(nm -D --defined-only digits.so | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | sort | tr '\n' ' ')" = "digits_model digits_run " ] ||
  fail "exports: $(nm -D --defined-only digits.so)"
[ "$(readelf -d digits.so | grep -c NEEDED)" = 1 ] && readelf -d digits.so | grep -q 'NEEDED.*libc\.so\.6' || fail "it needs more than libc"
for name in $(nm -D --undefined-only digits.so | awk '{ print $2 }' | sed 's/@.*//'); do
  nm -D --defined-only "$(ldd "$dlc" | awk '/libc\.so\.6/ { print $3 }')" | grep -qE " $name@" || fail "import $name is not libc's"
done
nm -D --undefined-only digits.so | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1 | grep -qE '^(GLIBC_2\.([0-9]|1[0-7])(\.[0-9]+)?)?$' ||
  [ -z "$(nm -D --undefined-only digits.so | grep -oE 'GLIBC_[0-9.]+')" ] || fail "imports newer than GLIBC_2.17"
readelf -lW digits.so | grep -q 'GNU_STACK.*RWE' && fail "the stack is executable"
readelf -d digits.so | grep -qE 'TEXTREL|RUNPATH|RPATH' && fail "text relocations or a search path"

# the header is plain C and C++
printf '#include "digits.h"\nint main(void) { return digits_model.n_inputs == 99; }\n' > use.c
for language in "cc -std=c99" "cc -std=c11" "c++ -x c++ -std=c++11" "c++ -x c++ -std=c++17"; do
  check $language -Wall -Wextra -Wpedantic -Werror -fsyntax-only use.c
done

# the program in the README compiles
check "$dlc" compile "$digits" -o resnet50.so --dim N=1
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$here/../../README.md" > readme.c
check cc -std=c11 -Wall -Werror -o readme readme.c resnet50.so

# the same bytes: again, elsewhere, with another number of jobs, with another locale and time zone
mkdir -p other/place
(cd other/place && cp "$digits" digits.onnx && TZ=Asia/Tokyo LC_ALL=C.UTF-8 HOME=/nowhere "$dlc" compile digits.onnx -o digits.so --cpu x86-64-v3 -j1 -q) ||
  fail "the second compile"
cmp -s digits.so other/place/digits.so || fail "two compiles differ in the library"
cmp -s digits.h other/place/digits.h || fail "two compiles differ in the header"

# memory while compiling: four times the model and 300 MiB (the model has 25 KB)
python3 - "$dlc" "$digits" <<'PY' || fail "a compile of a small model takes more than 300 MiB"
import resource, subprocess, sys
subprocess.run([sys.argv[1], "compile", "-q", sys.argv[2], "-o", "small.so"], check=True)
sys.exit(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 300 << 10)
PY

# two models in one program
printf '#include "digits.h"\n#include "chain.h"\nint main(void) { return digits_model.n_inputs + chain_model.n_inputs != 2; }\n' > both.c
check cc -Wall -Werror -o both both.c digits.so chain.so -Wl,-rpath,"$work"
check ./both

# contexts on threads
check cc -std=c11 -O1 -Wall -Wextra -Werror -o contexts -I. "$here/contexts.c" digits.so -lpthread -Wl,-rpath,"$work"
check ./contexts

# memory
if command -v valgrind > /dev/null; then
  check valgrind -q --error-exitcode=9 --leak-check=full ./contexts 3
fi

# run: files in and out; what comes out equals the interpreter's
check "$dlc" run chain.so --dim N=5 --output y=@y.npy --input x=rand:seed=3
check "$dlc" run chain.onnx --dim N=5 --output y=@z.npy --input x=rand:seed=3
cmp -s <(head -c 128 y.npy) <(head -c 128 z.npy) || fail "another shape than the interpreter's"
check "$dlc" run digits.so --print-top 3
grep -q 'top 3 of scores' log.txt || fail "no ranking"
check "$dlc" compare chain.so --ref interp chain.onnx --dim N=7
grep -q '^PASSED | 1 output, 1 sample' log.txt || fail "no verdict: $(cat log.txt)"
check "$dlc" compile good.onnx -o good.so
python=$(dirname "$dlc")/venv/bin/python
if [ -x "$python" ] && "$python" -c 'import onnxruntime' 2> /dev/null; then
  DLC_PYTHON=$python check "$dlc" compare chain.so --ref ort chain.onnx --dim N=3
  grep -q 'vs onnxruntime [0-9]' log.txt || fail "no ONNX Runtime: $(cat log.txt)"
fi
check "$dlc" compare good.so --ref data:sample
check "$dlc" compare good.so --ref data:sample --json
grep -q '"status":"passed"' log.txt || fail "no status in JSON"
cp -r sample wrong && python3 - <<'PY'
b = bytearray(open("wrong/output_0.pb", "rb").read()); b[-2] ^= 1; open("wrong/output_0.pb", "wb").write(b)
PY
"$dlc" compare good.so --ref data:wrong > log.txt 2>&1
[ $? = 1 ] && grep -q '^FAILED' log.txt || fail "a wrong output passes: $(cat log.txt)"

# from Python, without NumPy and with it
for interpreter in python3 "$python"; do
  command -v "$interpreter" > /dev/null || continue
  rm -rf python && mkdir python && cp digits.so chain.so python
  PYTHONPATH=$here/../../python check "$interpreter" "$here/python.py" python
done

# an input that does not fit, an index from the data that is out of range: words, not a crash
"$dlc" compile indices.onnx -o indices.so -q || fail "indices.onnx"
"$dlc" run good.so --input x=@y.npy > log.txt 2>&1
[ $? = 5 ] && grep -q 'E0504.*f32\[2,4\].*f32\[5,3\]' log.txt || fail "a wrong shape: $(cat log.txt)"
check "$dlc" inspect digits.so
check "$dlc" inspect "$digits" --json

if [ "$failures" = 0 ]; then echo "all as promised"; else exit 1; fi
