#!/usr/bin/env bash
# check.sh RUNNER BUILD: the ONNX backend tests against their status: on the interpreter (interpreted.txt), compiled for this
# machine (compiled.txt), and compiled with the extents of inputs as symbols (symbolic.txt). They are written into
# BUILD/onnx-tests by BUILD/venv (make test makes it); without it the test is skipped.
set -u
here=$(dirname "$0") runner=$1 build=$2
python=$build/venv/bin/python
[ -x "$python" ] && "$python" -c "import onnx, numpy" 2>/dev/null || { echo "no onnx package in $build/venv"; exit 77; }
"$python" -W ignore "$here/materialise.py" "$build/onnx-tests" || exit 1
failed=0
against() {
  status=$1
  shift
  "$runner" "$build/onnx-tests" --jobs "$(nproc)" --quiet --status "$here/$status" "$@" || failed=1
}
against interpreted.txt
against compiled.txt --cpu host
# every pass from text, so that texts are tried too; but not the large models: minutes for what the small ones show
against symbolic.txt --cpu host --symbolic --texts --skip light/
exit $failed
