#!/usr/bin/env bash
# check.sh RUNNER DLC BUILD: the ONNX backend tests against their status: on the interpreter (interpreted.txt) and compiled by DLC
# (compiled.txt). They are written into BUILD/onnx-tests by BUILD/venv (make test makes it); without it the test is skipped.
set -u
here=$(dirname "$0") runner=$1 dlc=$2 build=$3
python=$build/venv/bin/python
[ -x "$python" ] && "$python" -c "import onnx, numpy" 2>/dev/null || { echo "no onnx package in $build/venv"; exit 77; }
"$python" -W ignore "$here/materialise.py" "$build/onnx-tests" || exit 1
jobs=$(nproc) failed=0
"$runner" "$build/onnx-tests" --jobs "$jobs" --quiet --status "$here/interpreted.txt" || failed=1
"$runner" "$build/onnx-tests" --jobs "$jobs" --quiet --status "$here/compiled.txt" --dlc "$dlc" || failed=1
exit $failed
