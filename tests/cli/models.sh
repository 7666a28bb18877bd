#!/usr/bin/env bash
# models.sh DLC BUILD: trained models with stored outputs, from the folder that DLC_MODELS names or that stands beside the project
# (mnist/, super_resolution/ in ONNX's test-data layout, silero_vad/ with expected.json); skipped where there is none.
set -u
dlc=$(realpath "$1") build=$2
here=$(cd "$(dirname "$0")" && pwd)
for models in "${DLC_MODELS:-}" "$here"/../../../models "$here"/../../../*/models; do
  [ -d "$models/mnist" ] && break
done
[ -d "$models/mnist" ] || { echo "no folder of models: neither DLC_MODELS nor ../models nor ../*/models beside the project"; exit 77; }
models=$(realpath "$models")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
for name in mnist super_resolution; do
  "$dlc" compile -q "$models/$name/model.onnx" -o "$work/$name.so" || fail "compile $name"
  for data in "$models/$name"/test_data_set_*; do
    "$dlc" compare "$work/$name.so" --ref "data:$data" > "$work/log" || fail "$name, $data: $(tail -2 "$work/log")"
    "$dlc" compare --interp "$models/$name/model.onnx" --ref "data:$data" > "$work/log" 2>&1 || fail "$name interpreted: $(tail -2 "$work/log")"
  done
done
python=$build/venv/bin/python
if [ -x "$python" ] && [ -d "$models/silero_vad" ]; then
  for model in model model_ifless; do
    "$dlc" compile -q "$models/silero_vad/$model.onnx" -o "$work/$model.so" || fail "compile silero $model"
  done
  PYTHONPATH=$here/../../python "$python" "$here/silero.py" "$models/silero_vad" "$work" || fail "silero: probabilities"
fi
exit $((failures > 0))
