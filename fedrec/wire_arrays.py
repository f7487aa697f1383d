"""Named float32 arrays as Flower carries them, read back byte by byte."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

from fedrec.errors import WireError
from fedrec.schema import AdapterSchema, Arrays, ArraySpec

_MAGIC = b"\x93NUMPY\x01\x00"
_PREFIX = len(_MAGIC) + 2  # two bytes give the length of the text that follows
_MAX_NPY_HEADER = 10_000


class NotFiniteError(WireError):
    """An array of the right structure holds NaN or infinity."""


def array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Encode arrays as float32 npy bytes; raises ``NotFiniteError``."""
    encoded: dict[str, Array] = {}
    for name, values in arrays.items():
        with np.errstate(over="ignore"):  # what overflows becomes inf and is refused on the next line
            packed = np.asarray(values, dtype="<f4", order="C")
        if not np.isfinite(packed).all():
            raise NotFiniteError(f"array {name}: expected finite float32 numbers")
        encoded[name] = Array(packed)
    return ArrayRecord(encoded)


def read_arrays(record: ArrayRecord, schema: AdapterSchema) -> Arrays:
    """Decode every array of the schema, in its order; raises ``WireError`` for anything but these bytes."""
    if set(record) != {spec.name for spec in schema}:
        raise WireError(f"arrays: expected exactly the {len(schema)} names of the agreed schema")
    return {spec.name: _read_array(record[spec.name], spec) for spec in schema}


def _read_array(array: Array, spec: ArraySpec) -> np.ndarray:
    """Decode npy bytes ourselves: ``numpy.load`` would also open zip archives, strings and records."""
    expected = f"array {spec.name}: expected"
    shape = tuple(int(size) for size in spec.shape)
    if array.stype != "numpy.ndarray" or array.dtype != "float32" or array.shape != shape:
        raise WireError(f"{expected} float32 of shape {shape}")
    data = array.data
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _PREFIX:
        raise WireError(f"{expected} npy format 1.0")
    start = _PREFIX + int.from_bytes(data[len(_MAGIC) : _PREFIX], "little")
    if start > _MAX_NPY_HEADER:
        raise WireError(f"{expected} an npy header of at most {_MAX_NPY_HEADER} bytes")
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode("ascii")
    if data[_PREFIX:start].rstrip(b" \n") != described:
        raise WireError(f"{expected} an npy header for '<f4' in C order of shape {shape}")
    if len(data) - start != 4 * int(np.prod(shape, dtype=np.int64)):
        raise WireError(f"{expected} a payload of exactly its shape's size")
    values = np.frombuffer(data, dtype="<f4", offset=start).reshape(shape).astype(np.float32)  # a writable copy
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{expected} finite float32 numbers")
    return values
