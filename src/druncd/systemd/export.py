"""The journal's export format, in which journalctl writes entries.

See https://systemd.io/JOURNAL_EXPORT_FORMATS.
"""

from collections.abc import Iterator

Fields = dict[str, bytes]

_LENGTH_BYTES = 8


class Export:
    """Reads entries from pieces of it, of which each may end anywhere."""

    def __init__(self) -> None:
        self._left = b""
        self._fields: Fields = {}

    def entries(self, data: bytes) -> Iterator[Fields]:
        """The entries that end in this piece.

        Raises:
            ValueError: that is another format.
        """
        data = self._left + data
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at:end]
            name, equals, value = line.partition(b"=")
            if equals:
                self._fields[name.decode()] = value
                at = end + 1
            elif line:
                # A value that may have line breaks in it comes with its length.
                begin = end + 1 + _LENGTH_BYTES
                length = int.from_bytes(data[end + 1 : begin], "little")
                if len(data) <= begin + length:
                    break
                self._fields[name.decode()] = data[begin : begin + length]
                at = begin + length + 1
            else:
                at = end + 1
                if self._fields:
                    yield self._fields
                    self._fields = {}
        self._left = data[at:]
