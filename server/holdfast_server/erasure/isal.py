"""ISA-L's Reed–Solomon kernel on memory that is there already: parity is computed from where the data lies into where
it shall lie.

The library that pyeclib brings and has loaded is called directly, because pyeclib itself takes one run of bytes and
returns copies: for a stripe that is two clearings and three copies of what one pass can do, both ways.  Matrix and
field are those of its `isa_l_rs_cauchy`, byte for byte (a test compares them).  The calls release the interpreter's
lock.

Lost shards come from any K others by the inverse of those rows of the matrix that made the K; Cauchy's always has one.
The tables of a pattern of losses are kept, since a pod that is away is one pattern for each rotation of keys.

Not here: headers, layout (`codec`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

LIBRARY_NAMES = ("libisal-pyeclib.so.2", "libisal.so.2")
"""As in pyeclib's wheels; as distributions have it."""
_TABLE_BYTES_PER_COEFFICIENT = 32
_PATTERNS_KEPT = 256
"""Of losses, with their tables: at most 32 bytes for each shard used and made."""


def load() -> ctypes.CDLL:
    """Raises OSError, naming what was looked for."""
    for name in LIBRARY_NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"ISA-L is not there: none of {', '.join(LIBRARY_NAMES)} can be loaded")


class ShardKernel:
    """For one geometry.  Thread-safe."""

    def __init__(self, data_shards: int, parity_shards: int) -> None:
        self._data_shards, self._parity_shards = data_shards, parity_shards
        self._library = library = load()
        matrix = ctypes.create_string_buffer((data_shards + parity_shards) * data_shards)
        library.gf_gen_cauchy1_matrix(matrix, data_shards + parity_shards, data_shards)
        library.gf_mul.restype = ctypes.c_ubyte
        library.gf_mul.argtypes = [ctypes.c_ubyte, ctypes.c_ubyte]
        size = data_shards
        self._rows = [matrix.raw[at : at + size] for at in range(0, len(matrix.raw), size)]
        """By shard: what of each data shard goes into it."""
        self._tables = self._expanded(self._rows[data_shards:])
        self._encode = library.ec_encode_data
        self._encode.restype = None
        self._data_places = ctypes.c_void_p * data_shards
        self._parity_places = ctypes.c_void_p * parity_shards
        self._recovery = lru_cache(_PATTERNS_KEPT)(self._recovery_tables)

    def encode(self, size_bytes: int, places: Sequence[int]) -> None:
        """From the K addresses of `size_bytes` of data each, the P of parity that follow in `places`; whoever calls
        keeps that memory alive."""
        data = self._data_places(*places[: self._data_shards])
        parity = self._parity_places(*places[self._data_shards :])
        self._encode(size_bytes, self._data_shards, self._parity_shards, self._tables, data, parity)

    def recover(
        self, size_bytes: int, known: Sequence[int], places: Sequence[int], lost: Sequence[int], into: Sequence[int]
    ) -> None:
        """From the addresses (`places`) of `size_bytes` of each of K shards (`known`, by index) those of the `lost`
        ones, data or parity, to the addresses `into`; whoever calls keeps all that memory alive."""
        tables = self._recovery(tuple(known), tuple(lost))
        made = (ctypes.c_void_p * len(lost))(*into)
        self._encode(size_bytes, self._data_shards, len(lost), tables, self._data_places(*places), made)

    def _recovery_tables(self, known: tuple[int, ...], lost: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
        size = self._data_shards
        assert len(set(known)) == len(known) == size
        rows = ctypes.create_string_buffer(b"".join(self._rows[shard] for shard in known), size * size)
        inverse = ctypes.create_string_buffer(size * size)
        if self._library.gf_invert_matrix(rows, inverse, size):
            raise ArithmeticError(f"shards {known} do not determine the others")
        return self._expanded([self._times(self._rows[shard], inverse.raw) for shard in lost])

    def _times(self, row: bytes, matrix: bytes) -> bytes:
        """In the field of 256 elements, where sums are exclusive or."""
        size, multiply = self._data_shards, self._library.gf_mul
        product = bytearray(size)
        for index, factor in enumerate(row):
            for column in range(size):
                product[column] ^= multiply(factor, matrix[index * size + column])
        return bytes(product)

    def _expanded(self, rows: Sequence[bytes]) -> ctypes.Array[ctypes.c_char]:
        """What the kernel goes by."""
        tables = ctypes.create_string_buffer(_TABLE_BYTES_PER_COEFFICIENT * self._data_shards * len(rows))
        flat = ctypes.create_string_buffer(b"".join(rows), self._data_shards * len(rows))
        self._library.ec_init_tables(self._data_shards, len(rows), flat, tables)
        return tables
