"""Names, shapes and order of the shared arrays: what both sides mean by "the adapter"; and what a run may be called."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ArraySpec(NamedTuple):
    """Name and shape of one float32 array that crosses the wire."""

    name: str
    shape: tuple[int, ...]


AdapterSchema = tuple[ArraySpec, ...]
Arrays = dict[str, np.ndarray]


def flatten(arrays: Mapping[str, np.ndarray], schema: AdapterSchema) -> np.ndarray:
    """Join the named arrays in the schema's order into one float64 vector, (P,)."""
    return np.concatenate([np.asarray(arrays[spec.name], dtype=np.float64).reshape(-1) for spec in schema])


def unflatten(vector: np.ndarray, schema: AdapterSchema) -> Arrays:
    """Cut a (P,) vector back into named float32 arrays."""
    sizes = [math.prod(spec.shape) for spec in schema]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {spec.name: piece.reshape(spec.shape).astype(np.float32) for spec, piece in zip(schema, pieces, strict=True)}


def parameters_of(schema: AdapterSchema) -> int:
    """P, the number of shared parameters."""
    return sum(math.prod(spec.shape) for spec in schema)
