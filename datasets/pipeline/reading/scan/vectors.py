"""Bytes looked at and copied 32 at a time, which the processor does in a few instructions.

Neither checks bounds: from `place` on, and from `at` on, there have to be WIDTH bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from datasets.pipeline.compiled import part

WIDTH = 32

_BYTE, _PLACE = ir.IntType(8), ir.IntType(64)
_VECTOR, _MASK = ir.VectorType(_BYTE, WIDTH), ir.IntType(WIDTH)
Code = tuple[Any, Callable[..., Any]]


@intrinsic
def leading(_: Any, data: Any, place: Any, one: Any, other: Any, first: Any) -> Code:
    """leading(data, place, one, other, first): how many of the WIDTH bytes from data[place] on stand before the first that is `one`,
    `other`, or less than `first`, where a byte beyond ASCII counts as what it is less 256: a `first` from 0 on is above all of these, and
    -128 above none."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seen = builder.load(_vector_at(context, builder, signature, arguments, 0), align=1)
        one, other, first = (_everywhere(builder, argument) for argument in arguments[2:])
        found = builder.or_(builder.icmp_unsigned("==", seen, one), builder.icmp_unsigned("==", seen, other))
        found = builder.or_(found, builder.icmp_signed("<", seen, first))
        mask = builder.zext(builder.bitcast(found, _MASK), _PLACE)
        mask = builder.or_(mask, ir.Constant(_PLACE, 1 << WIDTH))
        return builder.cttz(mask, ir.Constant(ir.IntType(1), 1))

    return types.int64(data, types.int64, types.int64, types.int64, types.int64), code


@part
def seek(data: Any, place: int, end: int, one: int, other: int, first: int) -> int:
    """The first place from `place` on at which `leading` stops; one from `end` on where it does not before."""
    while place < end:
        ahead = leading(data, place, one, other, first)
        if ahead < WIDTH:
            return place + ahead
        place += WIDTH  # and not `ahead`: for that the processor would wait before it looks at the next bytes
    return place


@intrinsic
def copy(_: Any, data: Any, place: Any, into: Any, at: Any) -> Code:
    """copy(data, place, into, at): WIDTH bytes from data[place] on are written from into[at] on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seen = builder.load(_vector_at(context, builder, signature, arguments, 0), align=1)
        builder.store(seen, _vector_at(context, builder, signature, arguments, 2), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, into, types.int64), code


def _vector_at(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """A pointer to the bytes of the array that is the argument of this number, from the place that is the next one."""
    array = context.make_array(signature.args[number])(context, builder, arguments[number])
    return builder.bitcast(cgutils.gep_inbounds(builder, array.data, arguments[number + 1]), _VECTOR.as_pointer())


def _everywhere(builder: Any, byte: Any) -> Any:
    """A vector of the lowest eight bits of a number, WIDTH times."""
    single = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), builder.trunc(byte, _BYTE), ir.Constant(ir.IntType(32), 0)
    )
    first = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), first)
