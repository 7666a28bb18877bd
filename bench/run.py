#!/usr/bin/env python3
"""Measures dlc on a folder of models, beside other engines where a comparison script is given, and writes the table that the README quotes.

    bench/run.py MODELS... [--dlc build/dlc] [--threads 1,2] [--dim NAME=N]... [--peers compare.py] [--engines ort,openvino,ncnn,dlc]
                 [--rounds 15] [--out bench/results.md] [--readme README.md]

MODELS are .onnx files, or folders of them. A --dim counts for the models that have such a dimension. The script behind --peers runs
engines in turn on one model in one run (`compare.py MODEL --threads T --engines ... --dim ... --json FILE`, which holds
{model: {engine: {"median_ms", "error", ...}}}); dlc's ratio to the fastest of the others comes from there, all else from `dlc bench`.
The table is written anew after every model. The machine should do nothing else meanwhile.
"""
import argparse, json, os, platform, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BEGIN, END = "<!-- bench/results.md -->\n", "<!-- end of results -->\n"


def find_models(paths):
    for path in paths:
        if os.path.isdir(path):
            yield from sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".onnx"))
        else:
            yield path


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1][:200])
    return done.stdout


def dims_of(dlc, model, dims):
    """Of the given NAME=N, those whose name is a dimension of one of the model's inputs."""
    shapes = [dim for port in json.loads(run([dlc, "inspect", model, "--json"]))["inputs"] for dim in port["shape"]]
    return [part for dim in dims if dim.split("=")[0] in shapes for part in ("--dim", dim)]


def peers(args, model, dims, threads):
    """{engine: row} of one run of the comparison script."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        env = dict(os.environ, DLC_ROOT=ROOT)
        print(run([args.python, args.peers, model, "--threads", str(threads), "--engines", args.engines, "--rounds", str(args.rounds),
                   "--json", out.name] + dims, env=env).rstrip(), flush=True)
        return next(iter(json.load(open(out.name)).values()))


def measure(args, model):
    """{threads: {"bench": dlc's own numbers, "ms": dlc's time, "ratio": to the fastest peer or None}}"""
    result, dims = {}, dims_of(args.dlc, model, args.dim)
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, "model.so")
        run([args.dlc, "compile", model, "-o", library, "-q"])
        for threads in args.threads:
            rows = peers(args, model, dims, threads) if args.peers else {}
            bench = json.loads(run([args.dlc, "bench", library, "--per-op", "--json", "--threads", str(threads)] + dims))
            others = {name: row["median_ms"] for name, row in rows.items() if name != "dlc"}
            ms = rows["dlc"]["median_ms"] if "dlc" in rows else bench["latency_us"]["median"] / 1e3
            fastest = min(others, key=others.get) if others else None
            of_peak = bench["work"]["of_peak"]
            result[threads] = dict(bench=bench, ms=ms, fastest=fastest, ratio=ms / others[fastest] if others else None,
                                   of_peak=None if of_peak is None else of_peak * bench["latency_us"]["median"] / 1e3 / ms)
    return result


def cell(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value):
    return "-" if value is None else f"{value:.0%}"


def million(value):
    return "-" if value is None else f"{value / 1e6:.1f}"


def summary(results, threads):
    head = ["model"] + [f"{what}, {t} thread{'s' * (t > 1)}" for t in threads for what in ("ms", "to the fastest peer", "of peak")]
    lines = ["| " + " | ".join(head + ["multiplications, M", "by definition, M"]) + " |",
             "|" + " --- |" * (len(head) + 2)]
    for name, result in results.items():
        row = [name]
        for t in threads:
            r = result[t]
            row += [cell(r["ms"], 2), f"{r['ratio']:.2f} ({r['fastest']})" if r["ratio"] else "-", percent(r["of_peak"])]
        work = result[threads[0]]["bench"]["work"]
        lines.append("| " + " | ".join(row + [million(work["multiplications"]), million(work["multiplications_by_definition"])]) + " |")
    means = []
    for t in threads:
        ratios = [r[t]["ratio"] for r in results.values() if r[t]["ratio"]]
        means += ["", f"**{statistics.geometric_mean(ratios):.3f}**" if ratios else "-", ""]
    lines.append("| " + " | ".join(["geometric mean"] + means + ["", ""]) + " |")
    return "\n".join(lines) + "\n"


def slowest(results, threads, count=3):
    lines = ["| model | share | us | calls | GFLOP/s | GB/s | bound | of it | kernel |", "|" + " --- |" * 9]
    for name, result in results.items():
        kernels = sorted(result[threads]["bench"]["kernels"], key=lambda k: -k["time_us"])[:count]
        for k in kernels:
            lines.append(f"| {name} | {k['share']:.1%} | {k['time_us']:.1f} | {k['calls']} | {cell(k['gflops'], 1)} | {cell(k['gbs'], 1)} "
                         f"| {k['bound']} | {percent(k['of_bound'])} | {k['rule'] or ''} `{k['node']}` |")
            name = ""
    return "\n".join(lines) + "\n"


def machine(results, args):
    bench = next(iter(results.values()))[args.threads[0]]["bench"]
    peaks = "; ".join(f"{t} thread{'s' * (t > 1)} {max(r[t]['bench']['peak']['gflops'] for r in results.values()):.0f} GFLOP/s f32, "
                      f"{max(r[t]['bench']['peak']['read_gbs']['memory'] for r in results.values()):.0f} GB/s from memory" for t in args.threads)
    version = run([args.dlc, "version"]).strip()
    return f"{version}, {bench['host']['cpu']} ({bench['model']['cpu']}), {bench['host']['cpus']} CPUs, {platform.system()}. Measured peaks: {peaks}.\n"


def write(results, args):
    table = summary(results, args.threads)
    command = "bench/run.py MODELS" + "".join(f" --dim {d}" for d in args.dim) + (f" --peers compare.py --engines {args.engines}" if args.peers else "")
    with open(args.out, "w") as out:
        out.write(f"# Results\n\nWritten by `{command}`.\n\n{machine(results, args)}\n"
                  "Times are medians. \"To the fastest peer\": dlc's time divided by that of the fastest other engine in the same run, below 1 is faster.\n"
                  "\"Of peak\": the operations that ran in a loop of nothing but multiply-adds. Multiplications: those that ran, and those of the\n"
                  "operators' definition, which Winograd undercuts.\n\n"
                  f"{BEGIN}{table}{END}\n## The slowest kernels\n\n")
        for t in args.threads:
            out.write(f"{t} thread{'s' * (t > 1)}; bound: what limits the kernel, computing or reading from where its data can be.\n\n"
                      f"{slowest(results, t)}\n")
    if args.readme:
        text = open(args.readme).read()
        before, _, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"{args.readme} has no lines {BEGIN.strip()} and {END.strip()}")
        with open(args.readme, "w") as out:
            out.write(before + BEGIN + table + END + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dlc", default=os.path.join(ROOT, "build", "dlc"))
    parser.add_argument("--threads", default="1,2", type=lambda text: [int(t) for t in text.split(",")])
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=N")
    parser.add_argument("--peers", metavar="compare.py")
    parser.add_argument("--engines", default="ort,openvino,ncnn,dlc")
    parser.add_argument("--python", default=sys.executable, help="runs the comparison script")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", default=os.path.join(HERE, "results.md"))
    parser.add_argument("--readme", help="puts the table between its marks, too")
    args = parser.parse_args()
    results = {}
    for model in find_models(args.models):
        name = os.path.basename(model).removesuffix(".onnx")
        try:
            results[name] = measure(args, model)
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(name, *(f"| {t} thread{'s' * (t > 1)}: {r['ms']:.2f} ms, ratio {cell(r['ratio'], 2)}" for t, r in results[name].items()), flush=True)
        write(results, args)
    sys.exit(not results)


if __name__ == "__main__":
    main()
