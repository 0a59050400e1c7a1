"""Entries of the journal, as journalctl writes them, come out of it as they are."""

from hypothesis import given
from hypothesis import strategies as st

from druncd.systemd.export import Export, Fields

NAMES = st.sampled_from(("MESSAGE", "_LINE_BREAK", "__CURSOR", "_SYSTEMD_UNIT"))
VALUES = st.binary(max_size=40) | st.sampled_from((b"", b"a\nb", b"\n\n", b"=", b"A=b\n\nC=d\n"))


def written(entries: list[Fields]) -> bytes:
    """Entries as the format has them: with a length where there is a line break, or no text."""
    data = b""
    for fields in entries:
        for name, value in fields.items():
            if b"\n" in value or not value.isascii():
                length = len(value).to_bytes(8, "little")
                data += name.encode() + b"\n" + length + value + b"\n"
            else:
                data += name.encode() + b"=" + value + b"\n"
        data += b"\n"
    return data


@given(
    st.lists(st.dictionaries(NAMES, VALUES, min_size=1), max_size=5),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_entries_come_whole_wherever_pieces_end(entries: list[Fields], sizes: list[int]) -> None:
    data, export = written(entries), Export()
    found: list[Fields] = []
    index = 0
    while data:
        size = sizes[index % len(sizes)]
        index += 1
        found += export.entries(data[:size])
        data = data[size:]
    assert found == entries
