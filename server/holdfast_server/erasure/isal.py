"""ISA-L's Reed–Solomon kernel on memory that is there already: parity is computed from where the data lies into where
it shall lie.

The library that pyeclib brings and has loaded is called directly, because pyeclib itself takes one run of bytes and
returns copies: for a stripe that is two clearings and three copies of what one pass can do.  Matrix and field are
those of its `isa_l_rs_cauchy`, byte for byte (a test compares them).  The call releases the interpreter's lock.

Not here: headers, layout, decoding (`codec`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

LIBRARY_NAMES = ("libisal-pyeclib.so.2", "libisal.so.2")
"""As in pyeclib's wheels; as distributions have it."""
_TABLE_BYTES_PER_COEFFICIENT = 32


def load() -> ctypes.CDLL:
    """Raises OSError, naming what was looked for."""
    for name in LIBRARY_NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"ISA-L is not there: none of {', '.join(LIBRARY_NAMES)} can be loaded")


class ParityKernel:
    """For one geometry.  Thread-safe."""

    def __init__(self, data_shards: int, parity_shards: int) -> None:
        self._data_shards, self._parity_shards = data_shards, parity_shards
        library = load()
        matrix = ctypes.create_string_buffer((data_shards + parity_shards) * data_shards)
        library.gf_gen_cauchy1_matrix(matrix, data_shards + parity_shards, data_shards)
        parity_rows = ctypes.create_string_buffer(matrix.raw[data_shards * data_shards :])
        self._tables = ctypes.create_string_buffer(_TABLE_BYTES_PER_COEFFICIENT * data_shards * parity_shards)
        library.ec_init_tables(data_shards, parity_shards, parity_rows, self._tables)
        self._encode = library.ec_encode_data
        self._encode.restype = None
        self._data_places = ctypes.c_void_p * data_shards
        self._parity_places = ctypes.c_void_p * parity_shards

    def encode(self, size_bytes: int, places: Sequence[int]) -> None:
        """From the K addresses of `size_bytes` of data each, the P of parity that follow in `places`; whoever calls
        keeps that memory alive."""
        data = self._data_places(*places[: self._data_shards])
        parity = self._parity_places(*places[self._data_shards :])
        self._encode(size_bytes, self._data_shards, self._parity_shards, self._tables, data, parity)
