"""Trains the network of this example and writes digits.onnx and heldout.bin. Needs numpy, scikit-learn, onnx.

    python train.py            (half a minute, one thread; seeded)

The data are scikit-learn's digits: 1797 handwritten digits of 8x8 pixels, 0 to 16 (Alpaydin and Kaynak, Optical
Recognition of Handwritten Digits, UCI Machine Learning Repository). A fifth is held out and never trained on.
"""
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"    # sums in one order: reproducible

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

EPOCHS, BATCH, RATE, DECAY = 60, 32, 2e-3, 1e-4


def columns(x):
    """[n,c,h,w] -> [n,h,w,c*9]: the 3x3 neighbourhood of every pixel, zeros outside."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = [padded[:, :, r:r + h, s:s + w] for r in range(3) for s in range(3)]
    return np.stack(parts, 2).reshape(n, c * 9, h, w).transpose(0, 2, 3, 1)


def columns_gradient(g, shape):
    n, c, h, w = shape
    g = g.transpose(0, 3, 1, 2).reshape(n, c, 9, h, w)
    padded = np.zeros((n, c, h + 2, w + 2), g.dtype)
    for k in range(9):
        padded[:, :, k // 3:k // 3 + h, k % 3:k % 3 + w] += g[:, :, k]
    return padded[:, :, 1:-1, 1:-1]


class Conv:
    def __init__(self, rng, cin, cout):
        self.w = (rng.standard_normal((cout, cin, 3, 3)) * np.sqrt(2 / (cin * 9))).astype(np.float32)
        self.b = np.zeros(cout, np.float32)

    def forward(self, x):
        self.shape, self.cols = x.shape, columns(x)
        return (self.cols @ self.w.reshape(len(self.w), -1).T + self.b).transpose(0, 3, 1, 2)

    def backward(self, g):
        g = g.transpose(0, 2, 3, 1)
        flat = g.reshape(-1, g.shape[-1])
        self.gw = (flat.T @ self.cols.reshape(len(flat), -1)).reshape(self.w.shape)
        self.gb = flat.sum(0)
        return columns_gradient(g @ self.w.reshape(len(self.w), -1), self.shape)

    params = ("w", "b")


class ReluPool:
    """Relu, then the maximum of every 2x2 block."""

    def forward(self, x):
        n, c, h, w = x.shape
        blocks = np.maximum(x, 0).reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
        self.shape, self.best, self.live = x.shape, blocks.argmax(-1), blocks.max(-1) > 0
        return blocks.max(-1)

    def backward(self, g):
        n, c, h, w = self.shape
        blocks = np.zeros((n, c, h // 2, w // 2, 4), g.dtype)
        np.put_along_axis(blocks, self.best[..., None], (g * self.live)[..., None], -1)
        return blocks.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)

    params = ()


class Dense:
    def __init__(self, rng, nin, nout):
        self.w = (rng.standard_normal((nout, nin)) * np.sqrt(1 / nin)).astype(np.float32)
        self.b = np.zeros(nout, np.float32)

    def forward(self, x):
        self.shape, self.x = x.shape, x.reshape(len(x), -1)
        return self.x @ self.w.T + self.b

    def backward(self, g):
        self.gw, self.gb = g.T @ self.x, g.sum(0)
        return (g @ self.w).reshape(self.shape)

    params = ("w", "b")


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def forward(layers, x):
    for layer in layers:
        x = layer.forward(x)
    return x


def train(layers, x, y, rng):
    """Adam on the cross entropy."""
    slots = [(layer, p) for layer in layers for p in layer.params]
    m, v = ([np.zeros_like(getattr(layer, p)) for layer, p in slots] for _ in range(2))
    step = 0
    for epoch in range(EPOCHS):
        order, rate = rng.permutation(len(x)), RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        for at in range(0, len(x), BATCH):
            batch = order[at:at + BATCH]
            g = softmax(forward(layers, x[batch]))
            g[np.arange(len(batch)), y[batch]] -= 1
            g /= len(batch)
            for layer in reversed(layers):
                g = layer.backward(g)
            step += 1
            for i, (layer, p) in enumerate(slots):
                value, grad = getattr(layer, p), getattr(layer, "g" + p)
                m[i] = 0.9 * m[i] + 0.1 * grad
                v[i] = 0.999 * v[i] + 0.001 * grad * grad
                move = m[i] / (1 - 0.9 ** step) / (np.sqrt(v[i] / (1 - 0.999 ** step)) + 1e-8)
                value -= (rate * (move + DECAY * value)).astype(np.float32)


def write_model(path, conv1, conv2, dense):
    tensors = {"conv1.w": conv1.w, "conv1.b": conv1.b, "conv2.w": conv2.w, "conv2.b": conv2.b, "dense.w": dense.w,
               "dense.b": dense.b}
    same = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    half = dict(kernel_shape=[2, 2], strides=[2, 2])
    node = helper.make_node
    nodes = [node("Conv", ["pixels", "conv1.w", "conv1.b"], ["c1"], "conv1", **same), node("Relu", ["c1"], ["r1"], "relu1"),
             node("MaxPool", ["r1"], ["p1"], "pool1", **half),
             node("Conv", ["p1", "conv2.w", "conv2.b"], ["c2"], "conv2", **same), node("Relu", ["c2"], ["r2"], "relu2"),
             node("MaxPool", ["r2"], ["p2"], "pool2", **half), node("Flatten", ["p2"], ["f"], "flatten"),
             node("Gemm", ["f", "dense.w", "dense.b"], ["logits"], "dense", transB=1),
             node("Softmax", ["logits"], ["scores"], "softmax", axis=1)]
    graph = helper.make_graph(
        nodes, "digits", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(t), name) for name, t in tensors.items()])
    model = helper.make_model(graph, producer_name="train.py", ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main():
    data = load_digits()
    rng = np.random.default_rng(7)
    order = rng.permutation(len(data.target))
    x = (data.images[order, None] / 16).astype(np.float32)
    y = data.target[order].astype(np.int64)
    held = len(x) // 5
    layers = [conv1, _, conv2, _, dense] = [Conv(rng, 1, 16), ReluPool(), Conv(rng, 16, 32), ReluPool(), Dense(rng, 128, 10)]
    train(layers, x[held:], y[held:], rng)
    right = (forward(layers, x[:held]).argmax(1) == y[:held]).mean()
    print(f"{held} held-out digits, {right:.2%} right")
    write_model("digits.onnx", conv1, conv2, dense)
    with open("heldout.bin", "wb") as out:          # a digit: its label, then 64 pixels of 0 to 16, a byte each
        for image, label in zip(data.images[order][:held], y[:held]):
            out.write(bytes([label]) + image.astype(np.uint8).tobytes())


if __name__ == "__main__":
    main()
