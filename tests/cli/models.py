"""Writes the small models of the command-line tests into a folder: python3 models.py DIR. Needs no package: the wire format of
protobuf is a few lines, and malformed files want bytes that no library would write."""
import struct, sys

FLOAT, INT64, STRING, BOOL = 1, 7, 8, 9


def varint(n):
    out = b""
    n &= (1 << 64) - 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(field, n): return varint(field << 3) + varint(n)
def data(field, b): return varint(field << 3 | 2) + varint(len(b)) + b
def text(field, s): return data(field, s.encode())


def value(name, dims, dtype=FLOAT):
    shape = b"".join(data(1, text(2, d) if isinstance(d, str) else number(1, d)) for d in dims)
    return text(1, name) + data(2, data(1, number(1, dtype) + data(2, shape)))


def attribute(name, kind, payload): return text(1, name) + payload + number(20, kind)
def attr_int(name, n): return attribute(name, 2, number(3, n))
def attr_ints(name, ns): return attribute(name, 7, b"".join(number(8, n) for n in ns))
def attr_string(name, s): return attribute(name, 3, text(4, s))
def attr_graph(name, g): return attribute(name, 5, data(6, g))


def node(op, inputs, outputs, name="", attrs=(), domain=""):
    return (b"".join(text(1, i) for i in inputs) + b"".join(text(2, o) for o in outputs) + (text(3, name) if name else b"") +
            text(4, op) + b"".join(data(5, a) for a in attrs) + (text(7, domain) if domain else b""))


def tensor(name, dims, values, dtype=FLOAT, raw=None, extra=b""):
    raw = struct.pack("<%d%s" % (len(values), "f" if dtype == FLOAT else "q"), *values) if raw is None else raw
    return b"".join(number(1, d) for d in dims) + number(2, dtype) + text(8, name) + (data(9, raw) if raw else b"") + extra


def graph(nodes, inputs, outputs, tensors=()):
    return (b"".join(data(1, n) for n in nodes) + text(2, "g") + b"".join(data(5, t) for t in tensors) +
            b"".join(data(11, v) for v in inputs) + b"".join(data(12, v) for v in outputs))


def model(*args, opset=21, domain=""):
    imports = data(8, number(2, opset)) + (data(8, text(1, domain) + number(2, 1)) if domain else b"")
    return number(1, 10) + imports + data(7, graph(*args))


X, Y = value("x", [2, 4]), value("y", [2, 4])


def one(op, inputs=("x",), attrs=(), tensors=(), x=X, y=Y, **more):
    return model([node(op, inputs, ["y"], "it", attrs, more.pop("node_domain", ""))], [x], [y], tensors, **more)


def nested(depth):
    body = graph([], [], [])
    for _ in range(depth):
        body = graph([node("If", ["c"], ["y"], "", [attr_graph("then_branch", body)])], [], [])
    return number(1, 10) + data(8, number(2, 21)) + data(7, body)


def external(location, offset="0", length="32"):
    entry = lambda k, v: data(13, text(1, k) + text(2, v))
    keys = entry("location", location) + entry("offset", offset) + entry("length", length)
    return one("Add", ["x", "w"], tensors=[tensor("w", [2, 4], [], raw=b"", extra=keys + number(14, 1))])


W = tensor("w", [2, 4], [0.5 * i for i in range(8)])
good = one("Add", ["x", "w"], tensors=[W])
files = {
    "good.onnx": good,
    "chain.onnx": model([node("MatMul", ["x", "w"], ["a"], "product"), node("Relu", ["a"], ["b"], "relu"),
                         node("Add", ["b", "c"], ["y"], "sum")], [value("x", ["N", 4])], [value("y", ["N", 3])],
                        [tensor("w", [4, 3], [0.1 * (i - 5) for i in range(12)]), tensor("c", [3], [1, -1, 0.5])]),
    "choice.onnx": model([node("If", ["c"], ["y"], "choice", [
        attr_graph("then_branch", graph([node("MatMul", ["x", "w"], ["t"], "product")], [], [value("t", [2, 3])])),
        attr_graph("else_branch", graph([node("Slice", ["x", "from", "to", "axis"], ["e"], "part")], [], [value("e", [2, 3])]))])],
        [X, value("c", [1], BOOL)], [value("y", [2, 3])],
        [tensor("w", [4, 3], [0.5] * 12), tensor("from", [1], [1], INT64), tensor("to", [1], [4], INT64), tensor("axis", [1], [1], INT64)]),
    "indices.onnx": model([node("Gather", ["t", "i"], ["y"], "pick")], [value("i", [3], INT64)], [value("y", [3])],
                          [tensor("t", [5], [1, 2, 3, 4, 5])]),
    "truncated.onnx": good[:-20],
    "empty.onnx": b"",
    "lfs.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"1a" * 32 + b"\nsize 102400000\n",
    "html.onnx": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>\n",
    "zip.onnx": b"PK\x03\x04" + bytes(60),
    "noise.onnx": bytes((i * 37 + 11) & 255 for i in range(500)),
    "deep.onnx": nested(2000),
    "nograph.onnx": number(1, 10) + data(8, number(2, 21)),
    "cycle.onnx": model([node("Add", ["x", "b"], ["a"], "first"), node("Relu", ["a"], ["b"], "second")], [X], [value("b", [2, 4])]),
    "dangling.onnx": one("Add", ["x", "nowhere"]),
    "twice.onnx": model([node("Relu", ["x"], ["y"], "one"), node("Neg", ["x"], ["y"], "two")], [X], [Y]),
    "nooutput.onnx": model([node("Relu", ["x"], ["a"])], [X], [Y]),
    "unknown.onnx": one("Frobnicate"),
    "domain.onnx": one("Frobnicate", node_domain="com.acme", domain="com.acme"),
    "opset.onnx": one("Relu", opset=999),
    "mismatch.onnx": one("MatMul", ["x", "w"], tensors=[tensor("w", [5, 4], [0] * 20)]),
    "broadcast.onnx": one("Add", ["x", "w"], tensors=[tensor("w", [3], [0] * 3)]),
    "attribute.onnx": one("Relu", attrs=[attr_int("slope", 3)]),
    "attrtype.onnx": one("Softmax", attrs=[attr_string("axis", "last")]),
    "axis.onnx": one("Softmax", attrs=[attr_int("axis", 7)]),
    "arity.onnx": one("Add", ["x"]),
    "types.onnx": one("Add", ["x", "w"], tensors=[tensor("w", [4], [0] * 4, INT64)]),
    "short.onnx": one("Add", ["x", "w"], tensors=[tensor("w", [2, 4], [0] * 7)]),
    "huge.onnx": one("Add", ["x", "w"], tensors=[tensor("w", [1 << 31, 1 << 31, 4], [0])]),
    "negative.onnx": one("Add", ["x", "w"], tensors=[tensor("w", [-2, 4], [0] * 8)]),
    "outside.onnx": external("../secret.bin"),
    "absolute.onnx": external("/etc/passwd"),
    "missing.onnx": external("nothing.bin"),
    "beyond.onnx": external("good.onnx", offset="1000000000"),
    "escape.onnx": one("Frobnicate\x1b[31m"),
}


def main(folder):
    for name, content in files.items():
        with open(f"{folder}/{name}", "wb") as out:
            out.write(content)
    sample = f"{folder}/sample"                       # stored test data of good.onnx
    import os
    os.makedirs(sample, exist_ok=True)
    x = [float(i) for i in range(8)]
    for name, values in {"input_0": x, "output_0": [v + 0.5 * i for i, v in enumerate(x)]}.items():
        with open(f"{sample}/{name}.pb", "wb") as out:
            out.write(tensor(name, [2, 4], values))


main(sys.argv[1])
