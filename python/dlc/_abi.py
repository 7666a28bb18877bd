"""The structs of runtime/dlc.h, and where a library keeps its table."""
import ctypes
import os
import re
import struct
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_void_p
from ctypes import c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64

SHAPE_READY, E_SHAPE, E_DTYPE, E_NOMEM, E_CPU, E_LAYOUT, E_ARG = 1, -2, -3, -5, -6, -12, -1
NO_HUGE_PAGES, COPY_WEIGHTS, FLUSH_DENORMALS, SHARE_WEIGHTS = 1, 2, 4, 8
ABI_MAJOR = 1


class DLTensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)),
                ("strides", POINTER(c_int64)), ("byte_offset", c_uint64)]


class Io(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("rank", c_int32),
                ("dims", POINTER(c_int64)), ("dim_names", POINTER(c_char_p)), ("min", POINTER(c_int64)),
                ("max", POINTER(c_int64))]


class Opts(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("threads", c_int32), ("spin_us", c_int32),
                ("cpus", POINTER(c_int32)), ("n_cpus", c_int32), ("reserved", c_int32)] + [
                (name, c_void_p) for name in ("parallel_for", "parallel_user", "allocate", "release", "memory_user")]


TENSORS = POINTER(POINTER(DLTensor))


class ModelTable(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("abi_major", c_uint32), ("abi_minor", c_uint32), ("flags", c_uint32),
                ("name", c_char_p), ("info_json", c_char_p), ("n_inputs", c_int32), ("n_outputs", c_int32),
                ("inputs", POINTER(Io)), ("outputs", POINTER(Io)),
                ("check_host", CFUNCTYPE(c_int, c_char_p, c_size_t)), ("workspace_size", c_void_p),
                ("ctx_init", c_void_p),
                ("ctx_new", CFUNCTYPE(c_int, POINTER(Opts), POINTER(c_void_p))),
                ("ctx_free", CFUNCTYPE(None, c_void_p)),
                ("infer_shapes", CFUNCTYPE(c_int, c_void_p, POINTER(DLTensor), c_int, POINTER(DLTensor), c_int)),
                ("run", CFUNCTYPE(c_int, c_void_p, TENSORS, c_int, TENSORS, c_int)),
                ("enqueue", c_void_p), ("weights", c_void_p), ("last_error", CFUNCTYPE(c_char_p, c_void_p))]


def exported_tables(path):
    """Names that end in _model among the defined dynamic symbols of an ELF file."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"\x7fELF" or data[5] != 1:
        return []
    wide = data[4] == 2
    table, size, count = (*struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 58)) if wide else (
        *struct.unpack_from("<I", data, 32), *struct.unpack_from("<HH", data, 46))
    # type, offset, size, link
    sections = [struct.unpack_from("<4xI16xQQI" if wide else "<4xI8xIII", data, table + i * size) for i in range(count)]
    names = []
    for kind, start, length, link in sections:
        if kind != 11:  # SHT_DYNSYM
            continue
        for at in range(start, start + length, 24 if wide else 16):
            name, where = struct.unpack_from("<I2xH" if wide else "<I10xH", data, at)
            first = sections[link][1] + name
            text = data[first:data.index(b"\0", first)].decode()
            if where and text.endswith("_model"):
                names.append(text)
    return names


_opened = {}  # path: (the file's identity, how often another file stood there)


def open_library(path):
    """The loader takes what it has under a name for the file of that name, even if another file stands there by now."""
    stat = os.stat(path)
    identity = stat.st_dev, stat.st_ino
    known, others = _opened.get(path, (identity, 0))
    others += known != identity
    _opened[path] = identity, others
    folder, name = os.path.split(path)
    return ctypes.CDLL(os.path.join(folder, "./" * others + name))


def find_table(path):
    """Loads the library; its dlc_model table."""
    library = open_library(path)
    stem = re.sub(r"[^A-Za-z0-9]", "_", os.path.basename(path).split(".")[0])
    stem = "_" + stem if stem[:1].isdigit() else stem
    names = [stem + "_model"]
    if not hasattr(library, names[0]):
        names = exported_tables(path)
    if len(names) != 1:
        raise ValueError(f"{path}: not a library made by dlc (its tables: {', '.join(names) or 'none'})")
    model = ModelTable.in_dll(library, names[0])
    if model.abi_major != ABI_MAJOR or model.struct_size < ctypes.sizeof(ModelTable):
        raise ValueError(f"{path}: made for version {model.abi_major} of the interface, this package has {ABI_MAJOR}")
    return library, model
