"""Writes the ONNX backend tests as files: OUT/KIND/TEST/model.onnx and test_data_set_0/{input,output}_I.pb.

    python materialise.py OUT        (needs onnx and numpy; about 10 s)

Kinds: node, simple, pytorch-converted, pytorch-operator as the onnx package has them, and light, the nine models of
data/light with their made-up input and stored output. OUT is left alone if it is there and complete.
"""
import glob
import os
import shutil
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


def as_proto(value, kind, name):
    """The message that stands for a value of the graph input or output type `kind`."""
    if kind.HasField("optional_type"):
        if value is None:
            return onnx.OptionalProto(name=name)
        return numpy_helper.from_optional(value, name)
    if kind.HasField("sequence_type"):
        if not len(value):
            return onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.TENSOR)
        return numpy_helper.from_list(list(value), name)
    if isinstance(value, onnx.TensorProto):
        return value
    return numpy_helper.from_array(np.asarray(value), name)


def write(path, message):
    with open(path, "wb") as f:
        f.write(message.SerializeToString())


def write_data(folder, inputs, outputs):
    os.makedirs(folder, exist_ok=True)
    for prefix, protos in (("input", inputs), ("output", outputs)):
        for i, proto in enumerate(protos):
            write(f"{folder}/{prefix}_{i}.pb", proto)


def write_node_tests(out):
    for case in load_model_tests(kind="node"):
        folder = f"{out}/node/{case.name}"
        os.makedirs(folder, exist_ok=True)
        write(f"{folder}/model.onnx", case.model)
        for k, (inputs, outputs) in enumerate(case.data_sets):
            graph = case.model.graph
            write_data(f"{folder}/test_data_set_{k}",
                       [as_proto(v, g.type, g.name) for v, g in zip(inputs, graph.input)],
                       [as_proto(v, g.type, g.name) for v, g in zip(outputs, graph.output)])


def copy_stored_tests(data, out):
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for folder in sorted(glob.glob(f"{data}/{kind}/*/")):
            shutil.copytree(folder, f"{out}/{kind}/{os.path.basename(folder[:-1])}", dirs_exist_ok=True)


def write_light_tests(data, out):
    for path in sorted(glob.glob(f"{data}/light/light_*.onnx")):
        name = os.path.basename(path)[len("light_"):-len(".onnx")]
        folder = f"{out}/light/test_{name}"
        model = onnx.load(path)
        weights = {t.name for t in model.graph.initializer}
        inputs = []
        for g in (g for g in model.graph.input if g.name not in weights):
            shape = [d.dim_value for d in g.type.tensor_type.shape.dim]
            n = int(np.prod(shape))
            inputs.append(numpy_helper.from_array((np.arange(n).reshape(shape) / n).astype(np.float32), g.name))
        os.makedirs(folder, exist_ok=True)
        shutil.copy(path, f"{folder}/model.onnx")
        write_data(f"{folder}/test_data_set_0", inputs, [])
        shutil.copy(path[:-len(".onnx")] + "_output_0.pb", f"{folder}/test_data_set_0/output_0.pb")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    if os.path.exists(f"{out}/complete"):
        return
    data = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    write_node_tests(out)
    copy_stored_tests(data, out)
    write_light_tests(data, out)
    open(f"{out}/complete", "w").close()


if __name__ == "__main__":
    main()
