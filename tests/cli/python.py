"""python.py FOLDER: the Python package on libraries of library.sh: digits.so, chain.so. With NumPy or without."""
import array
import os
import sys

import dlc

try:
    import numpy as np
except ImportError:
    np = None

folder = sys.argv[1]


def raises(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), str(error)
    else:
        raise AssertionError(f"no {kind.__name__} with '{words}'")


m = dlc.load(f"{folder}/chain.so", threads=2)
assert m.inputs == [dlc.Port("x", "float32", ("N", 4))] and m.outputs == [dlc.Port("y", "float32", ("N", 3))], m.inputs
assert m.info["name"] == "chain"
x = np.arange(8, dtype=np.float32).reshape(2, 4) if np else memoryview(array.array("f", range(8))).cast("B").cast("f", (2, 4))
y = m.run({"x": x})["y"]
assert y.shape == (2, 3) and bytes(y) == bytes(m.new_context(threads=1)(x)), "another context, other bits"
if np:
    w = np.array([0.1 * (i - 5) for i in range(12)], np.float32).reshape(4, 3)
    assert np.allclose(y, np.maximum(x @ w, 0) + np.array([1, -1, 0.5]), atol=1e-6), y
    assert m._feed(m.inputs[0], {"x": x}).address == x.ctypes.data, "a copy of an input that can be read where it is"
    assert np.array_equal(m.run({"x": np.asfortranarray(x)})["y"], y), "an input that lies otherwise"
    raises(ValueError, "complex64", lambda: m.run({"x": x.astype(np.complex64)}))
    raises(ValueError, "'x'", lambda: m.run({"x": x.astype(np.float64)}))
    raises(ValueError, "5", lambda: m.run({"x": np.zeros((2, 5), np.float32)}))
raises(ValueError, "input 'x' is missing", lambda: m.run({}))
raises(ValueError, "no such input: 'z'", lambda: m.run({"x": x, "z": x}))
libc = next(line.split()[-1] for line in open("/proc/self/maps") if "libc.so" in line or "libc-" in line)
raises(ValueError, "not a library made by dlc", lambda: dlc.load(libc))
raises(FileNotFoundError, "nothing.so", lambda: dlc.load(f"{folder}/nothing.so"))

os.replace(f"{folder}/digits.so", f"{folder}/chain.so")      # another model under a name that is loaded
assert dlc.load(f"{folder}/chain.so").name == "digits" and m.name == "chain"
assert bytes(m.run({"x": x})["y"]) == bytes(y), "the model that was loaded first"
