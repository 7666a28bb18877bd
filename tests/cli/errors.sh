#!/usr/bin/env bash
# errors.sh DLC: every wrong model and command line gives its exit status and code, one line and at most one hint, and no file.
set -u
dlc=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
top=$(mktemp -d) work=$top/work
trap 'rm -rf "$top"' EXIT
failures=0
mkdir "$work"; echo secret > "$top/secret.bin"
python3 "$here/models.py" "$work" || exit 1
cd "$work" || exit 1
export NO_COLOR=1

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# expect STATUS CODE PATTERN command...
expect() {
  local status=$1 code=$2 pattern=$3 got
  shift 3
  "$@" > out.txt 2> err.txt
  got=$?
  [ $got = "$status" ] || fail "$*: exit status $got, not $status: $(head -3 err.txt)"
  if [ -n "$code" ]; then
    grep -q "^dlc: .*error\[$code\]" err.txt || fail "$*: no $code in: $(head -3 err.txt)"
    [ "$(grep -c '^dlc: ' err.txt)" = 1 ] || fail "$*: not one error line: $(cat err.txt)"
    [ "$(grep -vc '^dlc: ' err.txt)" = "$(grep -c '^  ' err.txt)" ] || fail "$*: stray lines: $(cat err.txt)"
    LC_ALL=C grep -q $'\033' err.txt && fail "$*: an escape sequence reaches the terminal"
  fi
  grep -qE -- "$pattern" out.txt err.txt || fail "$*: no \"$pattern\" in: $(head -3 out.txt err.txt)"
}

# a model that cannot be compiled: status code pattern file
refused() {
  expect "$1" "$2" "$3" "$dlc" compile "$4" -o "$4.so"
  [ -e "$4.so" ] || [ -e "${4}.h" ] && fail "$4: an output file"
  [ -z "$(find . -name '.dlc-tmp*')" ] || fail "$4: a temporary file is left"
}

refused 3 E0301 'truncated|short|cut'    truncated.onnx
refused 3 E030. ''                       empty.onnx
refused 3 E0302 'Git LFS'                lfs.onnx
refused 3 E0302 'web page|HTML'          html.onnx
refused 3 E0302 'zip|archive'            zip.onnx
refused 3 'E030[12]' ''                  noise.onnx
refused 3 E0303 'deep'                   deep.onnx
refused 3 E0304 'graph'                  nograph.onnx
refused 3 E0307 "first|second"           cycle.onnx
refused 3 E0307 'nowhere'                dangling.onnx
refused 3 E0307 "'?y'?"                  twice.onnx
refused 3 E0307 "'?y'?"                  nooutput.onnx
refused 4 E0401 'Frobnicate'             unknown.onnx
refused 4 E0401 'com.acme'               domain.onnx
refused 4 E0401 '999'                    opset.onnx
refused 3 E0411 "'it' \(MatMul.*f32\[2,4\].*f32\[5,4\].*4 and 5" mismatch.onnx
refused 3 E0411 "'it' \(Add"             broadcast.onnx
refused 4 E0402 'slope'                  attribute.onnx
refused 4 E0402 'axis'                   attrtype.onnx
refused 3 E0412 'axis|7'                 axis.onnx
refused 4 E0403 "'it'"                   arity.onnx
refused 4 E0404 'i64'                    types.onnx
refused 3 E0305 "w"                      short.onnx
refused 3 E0308 'w'                      huge.onnx
refused 3 'E030[458]' 'w'                negative.onnx
refused 3 E0306 'secret'                 outside.onnx
refused 3 E0306 'passwd'                 absolute.onnx
refused 3 E0306 'nothing.bin'            missing.onnx
refused 3 E0306 ''                       beyond.onnx
refused 4 E0401 'Frobnicate'             escape.onnx
refused 5 E0501 'No such file'           absent.onnx

# a failed compile leaves an older library alone
echo old > keep.so
expect 3 E0301 '' "$dlc" compile truncated.onnx -o keep.so
[ "$(cat keep.so)" = old ] || fail "a failed compile changed an existing file"

# command lines
expect 2 E0203 'usage'                   "$dlc"
expect 2 E0201 'mean dlc compile'        "$dlc" compil good.onnx
expect 2 E0201 'mean --threads'          "$dlc" compile good.onnx --thread 2
expect 2 E0201 'mean --output'           "$dlc" compile good.onnx --ouptut=x.so
expect 2 E0201 'no option -z'            "$dlc" compile good.onnx -z
expect 2 E0202 'wants a value'           "$dlc" compile good.onnx -o
expect 2 E0202 'takes no value'          "$dlc" compile good.onnx --explain=yes
expect 2 E0202 '0 to 1024'               "$dlc" compile good.onnx --threads many
expect 2 E0202 'mean strict'             "$dlc" compile good.onnx --fp32=strickt
expect 2 E0202 'dim'                     "$dlc" compile good.onnx --dim N
expect 2 E0202 'N'                       "$dlc" compile good.onnx -o x.so --dim N=3
expect 2 E0202 'x86-64-v3'               "$dlc" compile good.onnx -o x.so --cpu=pentium
expect 2 E0202 'C identifier'            "$dlc" compile good.onnx -o x.so --name=2-b
expect 2 E0202 'no kind'                 "$dlc" compile good.onnx -o x.so --emit=exe
expect 2 E0202 'simplify'                "$dlc" compile good.onnx -o x.so --stop-after=simplfy
expect 2 E0203 'usage'                   "$dlc" compile
expect 2 E0203 'too many'                "$dlc" inspect good.onnx good.onnx
expect 2 E0202 '--ref is missing'        "$dlc" compare good.onnx
expect 2 E0202 'mean x'                  "$dlc" run good.onnx --input y=ones
expect 2 E0202 'no output z'             "$dlc" run good.onnx --output z=@z.npy
expect 5 E0502 'cannot write'            "$dlc" compile good.onnx -o /nowhere/x.so
expect 5 E0502 'not a regular file'      "$dlc" compile good.onnx -o /dev/full
expect 5 E0501 'absent'                  "$dlc" run good.onnx --input x=@absent.npy
cp good.onnx wrong.npy; cp lfs.onnx text.so
expect 5 E0504 'not a .npy'              "$dlc" run good.onnx --input x=@wrong.npy
expect 5 E0503 'not a library'           "$dlc" run text.so
expect 5 E0503 'not a compiled model'    "$dlc" run "$(ldd "$dlc" | awk '/libc.so.6/ { print $3 }')"
expect 5 E0501 'no test data'            "$dlc" compare good.onnx --ref data:/nowhere
expect 7 E0701 'onnxruntime'             env DLC_PYTHON=/nowhere/python "$dlc" compare good.onnx --ref ort
"$dlc" help > /dev/full 2> err.txt
[ $? = 5 ] && grep -q E0502 err.txt || fail "dlc help > /dev/full: $(cat err.txt)"
expect 2 E0203 'no help on'              "$dlc" help frobnicate

# help and version
expect 0 '' 'usage: dlc VERB'            "$dlc" help
expect 0 '' '--stop-after'               "$dlc" help compile
expect 0 '' '--stop-after'               "$dlc" compile --help
expect 0 '' 'shapes do not fit'          "$dlc" help E0411
expect 0 '' 'dlc [0-9]'                  "$dlc" version
expect 0 '' '"schema":"dlc.version/1"'   "$dlc" version --json
expect 0 '' 'MatMul'                     "$dlc" ops
expect 4 '' 'Frobnicate'                 "$dlc" ops --model unknown.onnx
expect 0 '' 'every operator'             "$dlc" ops --model good.onnx
expect 0 '' 'input x  f32\[N,4\]'        "$dlc" inspect chain.onnx

# the README's tables are the program's
sed -n '/^<!-- dlc help --markdown -->/,/^<!-- end -->/p' "$here/../../README.md" | grep -v '^<!--' > readme.txt
"$dlc" help --markdown > help.txt
cmp -s readme.txt help.txt || fail "README.md: the tables differ from: dlc help --markdown"

# and its table of results is that of bench/
results() { sed -n '/^<!-- bench\/results.md -->/,/^<!-- end of results -->/p' "$here/../../$1"; }
[ -n "$(results README.md)" ] && [ "$(results README.md)" = "$(results bench/results.md)" ] || fail "README.md: another table than bench/results.md"

if [ "$failures" = 0 ]; then echo "all as expected"; else exit 1; fi
