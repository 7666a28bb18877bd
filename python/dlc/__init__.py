"""Calls models that `dlc compile` made. Needs nothing but Python; with NumPy, tensors are NumPy arrays.

    import dlc
    m = dlc.load("model.so", threads=2)
    m.inputs                                # [Port(name='x', dtype='float32', shape=('N', 4))]
    y = m.run({"x": array})["y"]            # contiguous arrays are read where they are

A model runs one call at a time; calls from several threads wait for each other. new_context() gives another one that
runs beside it.
"""
import collections
import ctypes
import json
import os
import threading
import weakref

from . import _abi

try:
    import numpy as np
except ImportError:
    np = None

__all__ = ["load", "Model", "Port"]

Port = collections.namedtuple("Port", "name dtype shape")

# (DLPack code, bits): NumPy's name, format of memoryview
_DTYPES = {(6, 8): ("bool", "?"),
           (0, 8): ("int8", "b"), (0, 16): ("int16", "h"), (0, 32): ("int32", "i"), (0, 64): ("int64", "q"),
           (1, 8): ("uint8", "B"), (1, 16): ("uint16", "H"), (1, 32): ("uint32", "I"), (1, 64): ("uint64", "Q"),
           (2, 16): ("float16", "e"), (2, 32): ("float32", "f"), (2, 64): ("float64", "d"), (4, 16): ("bfloat16", "H")}
_BY_NAME = {name: key for key, (name, _) in _DTYPES.items()}
_BY_NUMPY = {np.dtype(name): key for key, (name, _) in _DTYPES.items() if name != "bfloat16"} if np else {}
_BY_FORMAT = {"l": (0, 64), "L": (1, 64), **{form: key for key, (name, form) in _DTYPES.items() if name != "bfloat16"}}


def load(path, threads=0, **options):
    """The model in the library at `path`. threads: 0 is what it was compiled with (usually one for each CPU allowed).

    Options: spin_us (idle threads spin so long; -1: not at all), huge_pages=True, copy_weights (True: into huge pages;
    False: they stay where processes share them; None: copied if they are large), flush_denormals=False.
    """
    path = os.path.abspath(os.fspath(path))
    library, table = _abi.find_table(path)
    return Model(library, table, threads, options)


def _port(io):
    name = _DTYPES.get((io.code, io.bits), (f"code {io.code}, {io.bits} bits",))[0]
    shape = []
    for i in range(io.rank):
        symbol = io.dim_names[i] if io.dims[i] < 0 and io.dim_names else None
        shape.append(io.dims[i] if io.dims[i] >= 0 else symbol.decode() if symbol else None)
    return Port(io.name.decode(), name, tuple(shape))


class Model:
    """A context of a compiled model: inputs and outputs (lists of Port), info (a dict), run()."""

    def __init__(self, library, table, threads, options):
        self._library, self._table = library, table
        self.name = table.name.decode()
        self.info = json.loads(table.info_json.decode() or "{}")
        self.inputs = [_port(table.inputs[i]) for i in range(table.n_inputs)]
        self.outputs = [_port(table.outputs[i]) for i in range(table.n_outputs)]
        self._lock = threading.Lock()
        self._context = self._open(threads, **options)
        weakref.finalize(self, table.ctx_free, self._context)
        self._in = (_abi.DLTensor * len(self.inputs))()
        self._out = (_abi.DLTensor * len(self.outputs))()
        self._in_list = self._pointers(self._in)
        self._out_list = self._pointers(self._out)
        for tensor, io in zip(self._out, (table.outputs[i] for i in range(table.n_outputs))):
            tensor.device_type, tensor.lanes = 1, 1
            tensor.code, tensor.bits = io.code, io.bits
            tensor.shape = (ctypes.c_int64 * max(io.rank, 1))()
        self._shapes = None  # of the inputs, which the outputs' shapes below belong to
        self._out_shapes = None
        self._call, self._last_error = table.run, table.last_error
        self._adapt = _Array if np else _Buffer

    def _open(self, threads, spin_us=0, huge_pages=True, copy_weights=None, flush_denormals=False):
        opts = _abi.Opts(struct_size=ctypes.sizeof(_abi.Opts), threads=threads, spin_us=spin_us)
        opts.flags = ((not huge_pages) * _abi.NO_HUGE_PAGES | (copy_weights is True) * _abi.COPY_WEIGHTS |
                      (copy_weights is False) * _abi.SHARE_WEIGHTS | flush_denormals * _abi.FLUSH_DENORMALS)
        context = ctypes.c_void_p()
        code = self._table.ctx_new(opts, context)
        if code == _abi.E_CPU:
            why = ctypes.create_string_buffer(256)
            self._table.check_host(why, len(why))
            raise RuntimeError(f"{self.name}: {why.value.decode()}")
        if code:
            raise _error(code, "")
        return context

    def new_context(self, threads=0, **options):
        """The same model, with threads and memory of its own."""
        return Model(self._library, self._table, threads, options)

    def run(self, feeds):
        """feeds: {input's name: array}. Returns {output's name: new array}, in the model's order."""
        values = [self._feed(port, feeds) for port in self.inputs]
        if len(feeds) != len(values):
            known = {port.name for port in self.inputs}
            raise ValueError(f"no such input: {', '.join(repr(name) for name in feeds if name not in known)}")
        with self._lock:
            shapes = [(value.dtype, value.shape) for value in values]
            if shapes != self._shapes:
                self._infer(shapes)
            for tensor, value in zip(self._in, values):
                tensor.data = value.address
            results = []
            for port, tensor, shape in zip(self.outputs, self._out, self._out_shapes):
                array, tensor.data = _empty(port.dtype, shape)
                results.append(array)
            code = self._call(self._context, self._in_list, len(values), self._out_list, len(results))
            if code:
                raise self._error(code)
            for i, tensor in enumerate(self._out):
                shape = tuple(tensor.shape[:tensor.ndim])
                if shape != self._out_shapes[i]:  # the data made it smaller
                    results[i] = _shaped(results[i], shape)
                    _put_shape(tensor, self._out_shapes[i])
        return {port.name: array for port, array in zip(self.outputs, results)}

    def __call__(self, *values, **named):
        """Inputs by position or name; the output, or the list of them if there are several."""
        feeds = {**{port.name: value for port, value in zip(self.inputs, values)}, **named}
        if len(feeds) != len(values) + len(named):
            raise ValueError("too many inputs, or one given twice")
        results = list(self.run(feeds).values())
        return results[0] if len(results) == 1 else results

    def _feed(self, port, feeds):
        if port.name not in feeds:
            raise ValueError(f"input '{port.name}' is missing")
        return self._adapt(feeds[port.name], port)

    def _infer(self, shapes):
        """Inputs of other shapes than before: what shapes have the outputs?"""
        self._shapes = None
        for tensor, (dtype, shape) in zip(self._in, shapes):
            tensor.code, tensor.bits = dtype
            tensor.device_type, tensor.lanes, tensor.ndim = 1, 1, len(shape)
            tensor.shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        code = self._table.infer_shapes(self._context, self._in, len(self._in), self._out, len(self._out))
        if code:
            raise self._error(code)
        self._out_shapes = [tuple(tensor.shape[:tensor.ndim]) for tensor in self._out]
        self._shapes = shapes

    def _error(self, code):
        return _error(code, self._last_error(self._context).decode(errors="replace"))

    @staticmethod
    def _pointers(tensors):
        pointer = ctypes.POINTER(_abi.DLTensor)
        return (pointer * len(tensors))(*(ctypes.pointer(tensor) for tensor in tensors))


def _error(code, text):
    if code in (_abi.E_ARG, _abi.E_SHAPE, _abi.E_DTYPE, _abi.E_LAYOUT):
        return ValueError(text or f"an option's value is out of range (code {code})")
    return MemoryError(text) if code == _abi.E_NOMEM else RuntimeError(text or f"the model failed with code {code}")


class _Array:
    """An input as a NumPy array: contiguous, aligned, native byte order; copied only if it is not."""

    def __init__(self, value, port):
        if not isinstance(value, np.ndarray):
            value = np.asarray(value) if hasattr(value, "__array__") or hasattr(value, "__array_interface__") else (
                np.asarray(value, "uint16" if port.dtype == "bfloat16" else port.dtype))
        flags = value.flags
        if not (flags.c_contiguous and flags.aligned and value.dtype.isnative):
            value = np.require(value, value.dtype.newbyteorder("="), ["C", "A"])
        self.dtype = _BY_NUMPY.get(value.dtype) or _BY_NAME.get(value.dtype.name)
        if self.dtype == (1, 16) and port.dtype == "bfloat16":
            self.dtype = (4, 16)
        if not self.dtype:
            raise ValueError(f"input '{port.name}' has element type {value.dtype.name}, wanted is {port.dtype}")
        self.array, self.shape = value, value.shape
        self.address = value.__array_interface__["data"][0]


class _Buffer:
    """An input as any object with a buffer (array.array, bytes, memoryview), when there is no NumPy."""

    def __init__(self, value, port):
        view = memoryview(value)
        if not view.c_contiguous:
            view = memoryview(view.tobytes()).cast(view.format, view.shape)
        self.dtype = _BY_FORMAT.get(view.format.lstrip("@="))
        if port.dtype == "bfloat16" and self.dtype == (1, 16):
            self.dtype = (4, 16)
        if not self.dtype:
            raise ValueError(f"input '{port.name}' has element format '{view.format}', wanted is {port.dtype}")
        fixed = all(isinstance(n, int) for n in port.shape)
        self.shape = port.shape if fixed and view.ndim == 1 and _product(port.shape) == len(view) else view.shape
        flat = view.cast("B") if view.nbytes else memoryview(b"")
        if flat.readonly:
            flat = memoryview(bytearray(flat))
        self.memory = (ctypes.c_char * len(flat)).from_buffer(flat)
        self.address = ctypes.addressof(self.memory)


def _put_shape(tensor, shape):
    for i, extent in enumerate(shape):
        tensor.shape[i] = extent


def _product(shape):
    n = 1
    for extent in shape:
        n *= extent
    return n


def _empty(dtype, shape):
    """A new array and its address."""
    if np:
        array = np.empty(shape, "uint16" if dtype == "bfloat16" else dtype)
        return array, array.__array_interface__["data"][0]
    memory = bytearray(max(_product(shape) * _BY_NAME[dtype][1] // 8, 1))
    array = memoryview(memory).cast(_DTYPES[_BY_NAME[dtype]][1]) if _product(shape) else memoryview(b"")
    return _shaped(array, shape), ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))


def _shaped(array, shape):
    """The array's first elements in another shape."""
    if np:
        return array.reshape(-1)[:_product(shape)].reshape(shape)
    flat = array.cast("B").cast(array.format)[:_product(shape)] if array.nbytes else array
    return flat.cast("B").cast(flat.format, shape) if flat.nbytes else flat
