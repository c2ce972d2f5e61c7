"""What HDF5 must not be given to walk: forged group indexes lead it into a crash (2.0: a B-tree that contains itself, odd sizes).

So before HDF5 looks into a group, its header is read here, as the HDF5 File Format Specification says. What a group may have: its links in
its own header; or, where these are many, in a fractal heap and a B-tree of version 2 with the parameters that HDF5 always gives them.
Checksums are HDF5's business.
"""

import os
import struct
from collections.abc import Iterator

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1
_WINDOW_BYTES = 512  # read at once; a group's header has about 130
_MAX_CHUNKS = 64  # of one header
_MAX_HEADER_BYTES = 2**24  # room for all attributes that fit into a header
_LINK_INFO, _CONTINUATION, _ATTRIBUTE_INFO = 0x02, 0x10, 0x15
_OLD_GROUP = "it has a group in HDF5's layout from before version 1.8"
_ODD_TREE = "it has a group with an odd B-tree, or with more than a thousand members"
_NODE_BYTES = 512
_BROKEN = "it has a group with a broken header"
_HEAP = struct.Struct("<4sBHHBI")
_HEAP_TABLE = struct.Struct("<HQQHHQH")
_TREE = struct.Struct("<4sBBIHHBBQHQ")
_DENSE = {  # heap: bytes of an id, first block, bits of the largest size; tree: type, bytes of a record, most in the root at depth 0 and 1
    _LINK_INFO: (7, 512, 32, 5, 11, (45, 24)),
    _ATTRIBUTE_INFO: (8, 1024, 40, 8, 17, (29, 18)),
}


class Refused(Exception):
    """A reason why a file is no shard."""


class Guard:
    """Looks at the headers of an open file of ``size`` bytes; every check raises ``Refused``."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        self._window, self._start = os.pread(descriptor, _WINDOW_BYTES, 0), 0

    def superblock(self) -> int:
        """The address of the root group, of a file in a layout whose metadata have checksums."""
        head = self._window
        if not head:
            raise Refused("it is empty")
        if not head.startswith(SIGNATURE):
            raise Refused("it is not an HDF5 file")
        if len(head) < 48:
            raise Refused("it ends inside HDF5's superblock")
        if head[8] < 2:
            raise Refused("it is in HDF5's layout from before version 1.8, whose metadata have no checksums (libver v108 has them)")
        base, _, _, root = struct.unpack_from("<4Q", head, 12)
        if head[8] > 3 or head[9:11] != b"\x08\x08" or base != 0:
            raise Refused("its superblock is not of version 2 or 3 with 8-byte offsets and lengths, at the start of the file")
        return int(root)

    def group(self, address: int, attributes: bool = False) -> None:
        """A group's header: its links, and ``attributes`` where these will be looked at, are where HDF5 finds them without harm."""
        wanted = {_LINK_INFO, _ATTRIBUTE_INFO} if attributes else {_LINK_INFO}
        for kind, body in self._messages(address):
            if kind in wanted:
                wanted.remove(kind)  # HDF5 looks at the first one only
                self._dense(kind, body)
                if not wanted:
                    return
        if _LINK_INFO in wanted:
            raise Refused(_OLD_GROUP)

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Every message of a version 2 object header: type and content."""
        prefix = self._read(address, 32)
        if prefix[:5] != b"OHDR\x02":
            raise Refused(_OLD_GROUP)
        flags = prefix[5]
        at, width = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0), 1 << (flags & 3)
        head = 6 if flags & 4 else 4
        chunks = [(address + at + width, int.from_bytes(prefix[at : at + width], "little"))]
        for count, (start, length) in enumerate(chunks):  # grows while it is gone through
            if count == _MAX_CHUNKS or length > _MAX_HEADER_BYTES:
                raise Refused("it has a group whose header has no end")
            data, position = self._read(start, length), 0
            while position + head <= length:
                size = data[position + 1] | data[position + 2] << 8
                body = data[position + head : position + head + size]
                if len(body) < size:
                    raise Refused(_BROKEN)
                if data[position] == _CONTINUATION and size >= 16:
                    further, span = struct.unpack_from("<QQ", body)
                    chunks.append((further + 4, max(span, 8) - 8))  # without its signature and checksum
                yield data[position], body
                position += head + size

    def _dense(self, kind: int, body: bytes) -> None:
        """Links or attributes in a heap: with HDF5's own parameters and no more of them than there is room for."""
        at = 2 + ((8 if kind == _LINK_INFO else 2) if body[1:2] and body[1] & 1 else 0)
        if len(body) < at + 16:
            raise Refused(_BROKEN)
        heap, tree = struct.unpack_from("<QQ", body, at)
        if heap == tree == UNDEFINED:
            return
        id_bytes, block, bits, tree_kind, record, most = _DENSE[kind]
        heap_data = self._read(heap, 146)
        if _HEAP.unpack_from(heap_data) != (b"FRHP", 0, id_bytes, 0, 2, 4096):
            raise Refused("it has a group with an odd heap")
        huge, _, tiny = struct.unpack_from("<3Q", heap_data, 86)
        width, first, largest, max_bits, _, root, rows = _HEAP_TABLE.unpack_from(heap_data, 110)
        if (width, first, largest, max_bits) != (4, block, 65536, bits) or huge or tiny or rows > 16 or root >= self.size:
            raise Refused("it has a group with an odd heap")
        self._tree(tree, tree_kind, record, most)

    def _tree(self, address: int, kind: int, record: int, most: tuple[int, int]) -> None:
        """The B-tree over a heap, which has at most two stages: every number of records is the one that HDF5 will count."""
        *settings, depth, split, merge, root, records, total = _TREE.unpack(self._read(address, _TREE.size))
        if (
            [*settings, split, merge] != [b"BTHD", 0, kind, _NODE_BYTES, record, 100, 40]
            or depth > 1
            or not depth <= records <= most[depth]
        ):
            raise Refused(_ODD_TREE)
        node = self._read(root, _NODE_BYTES)
        if not node.startswith(b"BTIN" if depth else b"BTLF"):
            raise Refused(_ODD_TREE)
        pointers = node[6 + records * record :][: 9 * (records + 1) * depth]  # 8 bytes of address and one of records each
        counts = pointers[8::9]
        children = [int.from_bytes(pointers[at : at + 8], "little") for at in range(0, len(pointers), 9)]
        if any(self._read(child, 4) != b"BTLF" for child in children) or records + sum(counts) != total or max(counts, default=0) > most[0]:
            raise Refused(_ODD_TREE)

    def _read(self, address: int, count: int) -> bytes:
        if address + count > self.size:
            raise Refused("it has a group whose header lies outside the file")
        if not self._start <= address <= self._start + len(self._window) - count:
            self._window, self._start = os.pread(self.descriptor, max(count, _WINDOW_BYTES), address), address
        found = self._window[address - self._start :][:count]
        if len(found) < count:
            raise Refused("it has become shorter")
        return found
