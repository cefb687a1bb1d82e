"""Objects as zlib streams of blocks that do not refer to each other, so that objects which are alike share the work.

The tokenizer files of fifty migrations differ in a few bytes each. A block that begins or ends an object as it does an
earlier one is not compressed again. What is stored is one zlib stream (RFC 1950), which any zlib reads.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

RAW, ZLIB = b"r", b"z"
"""The first byte of a stored object: its bytes follow as they are, or a stream."""
BLOCK_BYTES = 1 << 18
_LEVEL = 3
_HEADER, _END = b"\x78\x5e", b"\x03\x00"
"""The two bytes that a stream of this level begins with, and an empty last block."""
_PAYS_BELOW = 0.9


@dataclass(frozen=True)
class Block:
    """Some bytes of an object, and what they are compressed to."""

    raw: bytes = field(repr=False)
    packed: bytes = field(repr=False)


Blocks = Sequence[Block]


def compress(data: bytes, earlier: Iterable[Blocks] = ()) -> tuple[bytes, Blocks]:
    """Return data as a zlib stream, with the blocks that it is made of; nothing of both if that saves too little.

    Args:
        earlier: The blocks of objects that may be alike.
    """
    start, lead, trail = max((_find_shared(data, blocks) for blocks in earlier), key=_count_shared, default=(0, (), ()))
    made, strategy = [*lead], zlib.Z_DEFAULT_STRATEGY
    if not lead and not trail:
        first, strategy = _compress_first(data[:BLOCK_BYTES])
        if len(first.packed) >= _PAYS_BELOW * len(first.raw):
            return b"", ()
        made, start = [first], len(first.raw)
    end = len(data) - sum(len(block.raw) for block in trail)
    for place in range(start, end, BLOCK_BYTES):
        made.append(_compress_block(data[place : min(end, place + BLOCK_BYTES)], strategy))
    made += trail
    check = zlib.adler32(data).to_bytes(4, "big")
    return b"".join((_HEADER, *(block.packed for block in made), _END, check)), made


def pack(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an object as it is stored, its first byte included, without holding all of it.

    Args:
        parts: What it is joined of; the first decides whether it is compressed.
    """
    rest = _gather(parts)
    first = next(rest, b"")
    lead, strategy = _compress_first(first[:BLOCK_BYTES])
    if len(lead.packed) >= _PAYS_BELOW * len(lead.raw):
        yield RAW + first
        yield from rest
        return
    check = 1
    yield ZLIB + _HEADER
    for part in chain([first], rest):
        check = zlib.adler32(part, check)
        for place in range(0, len(part), BLOCK_BYTES):
            yield _compress_block(part[place : place + BLOCK_BYTES], strategy).packed
    yield _END + check.to_bytes(4, "big")


def _gather(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield parts with those that are smaller than a block joined."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


Shared = tuple[int, Blocks, Blocks]
"""Where the first blocks of an object end, these blocks, and its last ones."""


def _find_shared(data: bytes, blocks: Blocks) -> Shared:
    lead: list[Block] = []
    start = 0
    for block in blocks:
        if not data.startswith(block.raw, start):
            break
        lead.append(block)
        start += len(block.raw)
    trail: list[Block] = []
    end = len(data)
    for block in reversed(blocks[len(lead) :]):
        if not data.endswith(block.raw, start, end):
            break
        trail.append(block)
        end -= len(block.raw)
    return start, lead, trail[::-1]


def _count_shared(shared: Shared) -> int:
    _, lead, trail = shared
    return len(lead) + len(trail)


def _compress_first(raw: bytes) -> tuple[Block, int]:
    """Return the first block of an object, and the strategy for those after it."""
    # In rows of numbers nothing repeats: looking for it takes five times as long as Huffman codes alone.
    strategies = (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)
    tried = [(_compress_block(raw, strategy), strategy) for strategy in strategies]
    return min(tried, key=lambda each: len(each[0].packed))


def _compress_block(raw: bytes, strategy: int) -> Block:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    # After a full flush nothing refers to what is before it.
    return Block(raw, compressor.compress(raw) + compressor.flush(zlib.Z_FULL_FLUSH))
