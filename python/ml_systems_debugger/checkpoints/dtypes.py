"""The element types of checkpoints: how many bits they take, and how they are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

__all__ = ["BLOCK_ELEMENTS", "DTYPES", "Dtype", "Scale"]

BLOCK_ELEMENTS = 1 << 20
"""Elements per partial of the statistics; tensors are split at multiples of it."""

_OPAQUE_BYTES = 4 << 20
_SCALE_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale inside a quantised block: byte offset in the block, and its type."""

    offset: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type.

    Parameters
    ----------
    name : str
        As reports show it.
    bits : int
        Per element; for quantised types the bits of a whole block.
    kernel : str or None
        Type that the kernels read, None where only bytes can be digested.
    lanes : int
        Kernel values per element: 2 for complex numbers.
    floating : bool
        NaN, Inf, zeros and ranges of it mean something.
    elements : int
        Elements per block of `bits` bits: 1 except for quantised types.
    scales : tuple of Scale
        The floats in a quantised block that are judged in place of its values.
    maximum : float or None
        Largest finite magnitude of a narrow type, for saturation.
    """

    name: str
    bits: int
    kernel: str | None
    lanes: int = 1
    floating: bool = False
    elements: int = 1
    scales: tuple[Scale, ...] = ()
    maximum: float | None = None

    @property
    def quantised(self) -> bool:
        """Whether values come in blocks with scales of their own."""
        return self.elements > 1

    def byte_size(self, shape: tuple[int, ...]) -> int:
        """Return the packed size in bytes of a tensor of this shape.

        Raises
        ------
        ValueError
            If the shape does not fill whole bytes or whole blocks.
        """
        count = prod(shape)
        if self.elements > 1:
            if count % self.elements or (shape and shape[-1] % self.elements):
                raise ValueError(f"rows of {self.name} come in multiples of {self.elements}")
            return count // self.elements * (self.bits // 8)
        bits = count * self.bits
        if bits % 8:
            raise ValueError(f"{count} elements of {self.name} do not fill whole bytes")
        return bits // 8

    @property
    def unit_bytes(self) -> int:
        """Bytes of the pieces that a tensor is read and judged in: a multiple of 8."""
        if self.elements > 1:
            size, blocks = self.bits // 8, 8
            while blocks * 2 * size <= _SCALE_BLOCK_BYTES:
                blocks *= 2
            return blocks * size
        if self.kernel is None:
            return _OPAQUE_BYTES
        return BLOCK_ELEMENTS // self.lanes * (self.bits // 8)


def _plain() -> Iterator[Dtype]:
    yield Dtype("float64", 64, "float64", floating=True)
    yield Dtype("float32", 32, "float32", floating=True)
    yield Dtype("float16", 16, "float16", floating=True, maximum=65504.0)
    yield Dtype("bfloat16", 16, "bfloat16", floating=True)
    yield Dtype("float8_e4m3fn", 8, "float8_e4m3fn", floating=True, maximum=448.0)
    yield Dtype("float8_e5m2", 8, "float8_e5m2", floating=True, maximum=57344.0)
    yield Dtype("float8_e4m3fnuz", 8, "float8_e4m3fnuz", floating=True, maximum=240.0)
    yield Dtype("float8_e5m2fnuz", 8, "float8_e5m2fnuz", floating=True, maximum=57344.0)
    yield Dtype("float8_e8m0fnu", 8, "float8_e8m0fnu", floating=True)
    yield Dtype("complex64", 64, "float32", lanes=2, floating=True)
    yield Dtype("complex128", 128, "float64", lanes=2, floating=True)
    for width in (8, 16, 32, 64):
        limit = 127.0 if width == 8 else None
        yield Dtype(f"int{width}", width, f"int{width}", maximum=limit)
        yield Dtype(f"uint{width}", width, f"uint{width}")
    yield Dtype("bool", 8, "uint8")
    # torch's quantised tensors: integers whose scale is kept beside them.
    yield Dtype("qint8", 8, "int8", maximum=127.0)
    yield Dtype("quint8", 8, "uint8")
    yield Dtype("qint32", 32, "int32")
    # Types below a byte: two e2m1 values, or 6-bit values packed; they hold no NaN and no Inf.
    yield Dtype("float4_e2m1fn_x2", 8, None, maximum=6.0)
    yield Dtype("float4_e2m1fn", 4, None, maximum=6.0)
    yield Dtype("float6_e2m3fn", 6, None)
    yield Dtype("float6_e3m2fn", 6, None)
    yield Dtype("complex32", 32, "float16", lanes=2, floating=True)
    for bits in range(1, 8):
        yield Dtype(f"int{bits}", 8, None)
        yield Dtype(f"uint{bits}", 8, None)
    yield Dtype("quint4x2", 8, None)
    yield Dtype("quint2x4", 8, None)


def _ggml() -> Iterator[Dtype]:
    """Yield the block types of ggml, laid out as its C structs have them."""
    half = "float16"

    def block(name: str, elements: int, size: int, *offsets: int, dtype: str = half) -> Dtype:
        scales = tuple(Scale(at, dtype) for at in offsets)
        kernel = dtype if scales else None
        return Dtype(name, size * 8, kernel, 1, bool(scales), elements, scales)

    yield block("q4_0", 32, 18, 0)
    yield block("q4_1", 32, 20, 0, 2)
    yield block("q5_0", 32, 22, 0)
    yield block("q5_1", 32, 24, 0, 2)
    yield block("q8_0", 32, 34, 0)
    # Two halves and 32 bytes. Only ever made in memory; some tables still give an older 40 bytes.
    yield block("q8_1", 32, 36, 0, 2)
    yield block("q2_k", 256, 84, 80, 82)
    yield block("q3_k", 256, 110, 108)
    yield block("q4_k", 256, 144, 0, 2)
    yield block("q5_k", 256, 176, 0, 2)
    yield block("q6_k", 256, 210, 208)
    yield block("q8_k", 256, 292, 0, dtype="float32")
    yield block("iq2_xxs", 256, 66, 0)
    yield block("iq2_xs", 256, 74, 0)
    yield block("iq3_xxs", 256, 98, 0)
    yield block("iq1_s", 256, 50, 0)
    yield block("iq4_nl", 32, 18, 0)
    yield block("iq3_s", 256, 110, 0)
    yield block("iq2_s", 256, 82, 0)
    yield block("iq4_xs", 256, 136, 0)
    # Its one half is spread over the top nibbles of four words at byte 48.
    yield block("iq1_m", 256, 56, 48, dtype="float16_nibbles")
    yield block("tq1_0", 256, 54, 52)
    yield block("tq2_0", 256, 66, 64)
    yield block("mxfp4", 32, 17, 0, dtype="float8_e8m0fnu")
    yield block("nvfp4", 64, 36, 0, 1, 2, 3, dtype="float8_e4m3fn")
    yield block("q1_0", 128, 18, 0)


DTYPES: Mapping[str, Dtype] = MappingProxyType({d.name: d for d in (*_plain(), *_ggml())})
"""Every type by name."""
