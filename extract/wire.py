"""The parts of two published formats that checkpoints of other frameworks are built from: Protocol Buffers' wire format and CRC-32C."""

from collections.abc import Iterator

import numpy as np

LANES = 4096  # stretches of a long input that CRC-32C is taken of side by side
POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
ALL_BITS = 0xFFFFFFFF
WIDTHS = {1: 8, 5: 4}  # wire type -> bytes of a number of fixed width


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of variable length at ``at``: (number, place behind it). ``ValueError`` where the data end within it."""
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("it holds a number of more than 64 bits")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a Protocol Buffers message in order: an int for varints, else the field's bytes, not copied.

    Raises ``ValueError`` for what is no message.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = varint(message, at)
        elif kind in WIDTHS:
            size = WIDTHS[kind]
        else:
            raise ValueError(f"it holds a field of unknown kind {kind}")
        if at + size > len(message):
            raise ValueError("it ends within a field")
        yield number, message[at : at + size]
        at += size


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


TABLE = _table()
BYTE_TABLE: list[int] = TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of ``data``, as iSCSI, LevelDB and TensorFlow use it.

    The register is linear in what it held before: behind m bytes B it holds Z(before) ^ R(B), where Z is the way of m zero bytes. So long
    data are cut into ``LANES`` stretches whose R are taken side by side, and Z is found by sending each of its 32 bits along.
    """
    raw = np.frombuffer(data, np.uint8)
    length = len(raw) // LANES
    register = ALL_BITS
    if length >= 16:
        lanes = np.ascontiguousarray(raw[: LANES * length].reshape(LANES, length).T)
        state = np.concatenate([np.zeros(LANES, np.uint32), np.uint32(1) << np.arange(32, dtype=np.uint32)])
        for column in lanes:
            index = state & 0xFF
            index[:LANES] ^= column
            state = TABLE[index] ^ (state >> 8)
        ways = state[LANES:].tolist()
        for stretch in state[:LANES].tolist():
            register = _along(register, ways) ^ stretch
        raw = raw[LANES * length :]
    for byte in raw.tolist():
        register = BYTE_TABLE[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ ALL_BITS


def _along(register: int, ways: list[int]) -> int:
    result = 0
    for bit, way in enumerate(ways):
        if register >> bit & 1:
            result ^= way
    return result


def masked(crc: int) -> int:
    """A CRC as LevelDB and TensorFlow store it: turned by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & ALL_BITS
