#!/usr/bin/env bash
# check.sh RUNNER BUILD: the ONNX backend tests on the interpreter against status.txt. They are written into BUILD/onnx-tests by
# BUILD/venv (make test makes it); without it the test is skipped.
set -eu
here=$(dirname "$0") runner=$1 build=$2
python=$build/venv/bin/python
[ -x "$python" ] && "$python" -c "import onnx, numpy" 2>/dev/null || { echo "no onnx package in $build/venv"; exit 77; }
"$python" -W ignore "$here/materialise.py" "$build/onnx-tests"
exec "$runner" "$build/onnx-tests" --quiet --status "$here/status.txt"
