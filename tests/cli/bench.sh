#!/usr/bin/env bash
# bench.sh DLC: dlc bench and dlc profile: numbers that fit together, counts known by hand, traces, files that go, wrong command lines.
set -u
dlc=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
check() { "$@" > log.txt 2>&1 || fail "$*: $(tail -5 log.txt)"; }
refuse() { # STATUS CODE PATTERN command...
  local status=$1 code=$2 pattern=$3 got
  shift 3
  "$@" > log.txt 2>&1
  got=$?
  [ $got = "$status" ] && grep -q "error\[$code\]" log.txt && grep -q "$pattern" log.txt || fail "$*: status $got, $(head -3 log.txt)"
}
# json FILE EXPRESSION: a Python expression about the object j is true
json() { python3 -c 'import json,sys; j=json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$1" "$2" || fail "$1: not $2"; }
python3 "$here/models.py" . || exit 1
mkdir temporary; export TMPDIR=$work/temporary
fast="--warmup 1ms --iterations 30"
check "$dlc" compile chain.onnx -o chain.so
check "$dlc" compile choice.onnx -o choice.so

# x[N,4] * w[4,3], maximum with 0, plus c: 12 multiplications and 30 operations a row; bytes: x, y and the constants once
for rows in 1 5 33; do
  check "$dlc" bench chain.so --dim N=$rows --per-op --json=b.json $fast
  json b.json "j['work']['multiplications'] == j['work']['multiplications_by_definition'] == 12 * $rows"
  json b.json "j['work']['flops'] == 30 * $rows and j['work']['weight_bytes'] == 60 and j['work']['reads'] == 16 * $rows + 60 and j['work']['writes'] == 12 * $rows"
  json b.json "j['batch'] == $rows and j['model']['precision'] == 'f32' and 'x f32[$rows,4]' == j['model']['inputs']"
done
json b.json "j['schema'] == 'dlc.bench/1' and j['status'] == 'passed' and j['config']['runs'] == 30"
json b.json "j['latency_us']['min'] <= j['latency_us']['median'] <= j['latency_us']['p95'] <= j['latency_us']['p99'] <= j['latency_us']['max']"
json b.json "j['latency_us']['min'] <= j['latency_us']['mean'] <= j['latency_us']['max']"
json b.json "abs(j['throughput'] * j['config']['seconds'] / 30 - 1) < 1e-6 and j['memory']['weights'] > 0 and j['memory']['workspace'] > 0"
json b.json "abs(j['work']['gflops'] * j['latency_us']['median'] * 1e3 / j['work']['flops'] - 1) < 1e-6"
json b.json "j['peak']['gflops'] > 0.1 and abs(j['work']['of_peak'] * j['peak']['gflops'] / j['work']['gflops'] - 1) < 1e-6"
json b.json "0 < j['peak']['read_gbs']['memory'] <= j['peak']['read_gbs']['L3'] <= j['peak']['read_gbs']['L2']"
json b.json "abs(sum(k['time_us'] for k in j['kernels']) - j['profile']['kernels_us']) < 1e-3 and abs(sum(k['share'] for k in j['kernels']) - 1) < 1e-6"
json b.json "sum(k['calls'] for k in j['kernels']) == j['profile']['steps'] == 1 and j['kernels'][0]['node'] == 'sum'"

# a whole model: its kernels take its time, but for what lies between them; one convolution has a way with fewer multiplications
digits=$here/../../examples/digits/digits.onnx
check "$dlc" bench "$digits" --dim N=64 --threads 1 --per-op --json=d.json --warmup 20ms --duration 100ms
json d.json "j['config']['runs'] >= 10 and j['config']['threads'] == 1 and len(j['kernels']) > 2"
json d.json "0.3 < j['work']['multiplications'] / j['work']['multiplications_by_definition'] < 1"
json d.json "j['work']['flops'] == sum(k['flops'] for k in j['kernels']) and j['work']['reads'] == sum(k['reads'] for k in j['kernels'])"
json d.json "0.1 < (j['profile']['kernels_us'] + j['profile']['between_us']) / j['latency_us']['median'] < 10"
json d.json "0 < j['profile']['bounds_us'] < j['profile']['kernels_us']"

# what data decide is seen while it runs: each branch has kernels of its own
check "$dlc" profile choice.so --input c=ones --json=then.json $fast
check "$dlc" profile choice.so --input c=zeros --json=else.json $fast
json then.json "sum(k['multiplications'] for k in j['kernels']) == 24 and j['schema'] == 'dlc.profile/1'"
json else.json "sum(k['multiplications'] for k in j['kernels']) == 0 and len(j['kernels']) >= 1"
check "$dlc" bench choice.so --input c=ones $fast

# the screen
check "$dlc" bench chain.so --threads 2 --pin --percentile 50,99.9 -v $fast
grep -q '^model .*chain.so.*f32.*sha256 [0-9a-f]\{8\}.*x f32\[1,4\]' log.txt || fail "no model: $(cat log.txt)"
grep -q '^host .*2 threads on .*pinned' log.txt || fail "no host: $(cat log.txt)"
grep -q '^=== Performance summary (warm-up 1 ms, 30 runs in ' log.txt || fail "no title: $(cat log.txt)"
grep -qE '^Latency +: min [0-9.]+ +max [0-9.]+ +mean [0-9.]+ +median [0-9.]+ +p50 [0-9.]+ +p99.9 [0-9.]+ us$' log.txt || fail "no latency: $(cat log.txt)"
grep -qE '^Compute +: 30 FLOP a run, .* % of the peak \(' log.txt || fail "no work: $(cat log.txt)"
grep -q '^! N: not given' log.txt || fail "nothing of N: $(cat log.txt)"
tail -1 log.txt | grep -qE '^PASSED \| [0-9.]+ s \| dlc bench chain.so$' || fail "no verdict: $(cat log.txt)"
[ -z "$("$dlc" bench chain.so -q $fast)" ] || fail "-q prints"
check "$dlc" bench chain.so $fast --export-times times.json
json times.json "len(j['us']) == 30 and min(j['us']) > 0"

# the trace: a slice for every step on the caller's row, inside its run; rows have names
check "$dlc" profile "$digits" --dim N=500 --threads 2 --trace trace.json --iterations 2 --warmup 1ms
grep -q '2 runs of [0-9]* steps on 2 threads' log.txt || fail "the trace says nothing: $(cat log.txt)"
python3 - <<'PY' || fail "trace.json"
import json
events = json.load(open("trace.json"))["traceEvents"]
rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
assert rows == {0: "caller", 1: "worker 1"}, rows
slices = [e for e in events if e["ph"] == "X"]
runs = [e for e in slices if e["cat"] == "run"]
steps = [e for e in slices if e["cat"] != "run"]
assert len(runs) == 2 and steps and {e["tid"] for e in steps} == {0, 1}, (len(runs), {e["tid"] for e in steps})
first, second = ([e for e in steps if e["tid"] == 0 and e["args"]["run"] == r] for r in (1, 2))
assert [e["name"] for e in first] == [e["name"] for e in second]
assert all(e["dur"] >= 0 and e["args"]["kernel"] and e["args"]["writes"] > 0 for e in steps)
for e in steps:
    run = runs[e["args"]["run"] - 1]
    assert run["ts"] <= e["ts"] + 1 and e["ts"] + e["dur"] <= run["ts"] + run["dur"] + 1, (run, e)
for a, b in zip(first, first[1:]):
    assert a["ts"] + a["dur"] <= b["ts"] + 1e-3, (a, b)
PY

# wrong command lines, and files
refuse 2 E0202 'not a time'          "$dlc" bench chain.so --warmup 3
refuse 2 E0202 'not a time'          "$dlc" bench chain.so --duration=-1s
refuse 2 E0202 '1 to'                "$dlc" bench chain.so --iterations 0
refuse 2 E0202 'percentile'          "$dlc" bench chain.so --percentile 50,,99
refuse 2 E0202 'percentile'          "$dlc" bench chain.so --percentile 101
refuse 2 E0202 'a dimension M'       "$dlc" bench chain.so --dim M=3
refuse 2 E0202 'compiled already'    "$dlc" bench chain.so --cpu x86-64-v3
refuse 2 E0202 'wants a value'       "$dlc" profile chain.so --trace
refuse 2 E0201 'no option'           "$dlc" profile chain.so --percentile 50
refuse 5 E0501 'absent'              "$dlc" bench absent.so
refuse 5 E0502 'nowhere'             "$dlc" profile chain.so --trace /nowhere/t.json
refuse 5 E0502 'nowhere'             "$dlc" bench chain.so --export-times /nowhere/t.json
refuse 4 E0401 'Frobnicate'          "$dlc" bench unknown.onnx
cp good.onnx text.so
refuse 5 E0503 'not a library'       "$dlc" bench text.so
echo old > keep.json
refuse 4 E0401 'Frobnicate'          "$dlc" profile unknown.onnx --trace keep.json
[ "$(cat keep.json)" = old ] || fail "a failed profile changed an existing file"

# a model's library goes, also when the measuring is ended
[ -z "$(ls -A temporary)" ] || fail "left: $(ls -A temporary)"
"$dlc" bench good.onnx --duration 1min > log.txt 2>&1 &
pid=$!
until [ -s temporary/*.so ] 2> /dev/null; do kill -0 $pid 2> /dev/null || break; sleep 0.05; done
kill -TERM $pid
wait $pid
[ $? = 143 ] || fail "ended with $?: $(cat log.txt)"
[ -z "$(ls -A temporary)" ] || fail "left behind: $(ls -A temporary)"

if [ "$failures" = 0 ]; then echo "all as measured"; else exit 1; fi
