"""Heads and bodies from bytes: the same messages or the same refusal, however the bytes are cut."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.makers.http_cases import CASES, LAST

from edge_agent.http.body_reader import ChunkedReader, LengthReader
from edge_agent.http.head_reader import HeadReader
from edge_agent.http.messages import HttpError


def read(*pieces):
    """Return what the pieces hold, as a connection would read it: requests, and the status that refuses the rest."""
    heads, body, found = HeadReader(), None, []
    try:
        for piece in pieces:
            data = memoryview(piece)
            while data:
                if body is None:
                    parsed, taken = heads.feed(data)
                    if parsed is not None:
                        found.append([parsed.head.method, parsed.head.path, b""])
                        body = ChunkedReader() if parsed.length is None else LengthReader(parsed.length)
                        if body.done:
                            body = None
                else:
                    part, taken = body.feed(data)
                    found[-1][2] += part
                    if body.done:
                        body = None
                data = data[taken:]
    except HttpError as refusal:
        if body is not None:
            found.pop()
        found.append(refusal.response.status)
    return found


def cuts_of(wire):
    """Every place near what is not plain text, and some others."""
    near = {at + shift for at, byte in enumerate(wire[:4000]) if byte < 33 for shift in (0, 1)}
    drawn = random.Random(1)
    return sorted(near | {drawn.randrange(1, len(wire)) for _ in range(20)})[:120]


@pytest.mark.parametrize("name", CASES)
def test_an_edge_of_http_is_read_alike_however_it_is_cut(name):
    wire, statuses = CASES[name]
    whole = read(wire + LAST)
    refused = [status for status in statuses if status != 200]
    assert [part for part in whole if isinstance(part, int)] == refused
    for cut in cuts_of(wire + LAST):
        assert read((wire + LAST)[:cut], (wire + LAST)[cut:]) == whole, cut
    if len(wire) < 4000:
        assert read(*(bytes([byte]) for byte in wire + LAST)) == whole


@settings(max_examples=50, deadline=None)
@given(
    data=st.binary(max_size=60),
    at=st.floats(0, 1),
    cut=st.floats(0, 1),
    name=st.sampled_from([name for name, (wire, _) in CASES.items() if len(wire) < 400]),
)
def test_damaged_bytes_are_read_alike_however_they_are_cut(data, at, cut, name):
    wire = CASES[name][0] + LAST
    place = int(at * len(wire))
    damaged = wire[:place] + data + wire[place + len(data) // 2 :]
    middle = int(cut * len(damaged))
    assert read(damaged[:middle], damaged[middle:]) == read(damaged) == read(*(bytes([b]) for b in damaged))


def test_small_chunks_are_kept_as_one_piece():
    piece, taken = ChunkedReader().feed(memoryview(b"1\r\nx\r\n" * 1000))
    assert (piece, taken) == (b"x" * 1000, 6000)


def test_spaces_in_a_value_cost_no_more_than_other_letters():
    head = b"GET /x HTTP/1.1\r\nhost: a\r\nx: " + b"a " * 15_000 + b"\1\r\n\r\n"
    with pytest.raises(HttpError, match="a header line"):
        HeadReader().feed(memoryview(head))


def test_fields_of_one_name_are_joined_and_the_white_space_around_values_is_not_part_of_them():
    parsed, _ = HeadReader().feed(memoryview(b"GET /x?q#f HTTP/1.1\r\nhost: a\r\nX: \t b \t\r\nx:c\r\n\r\n"))
    assert parsed.head.headers == {b"host": b"a", b"x": b"b, c"}
    assert parsed.head.path == b"/x"


@pytest.mark.parametrize("size", [1, 3, 4096, 40_000])
def test_what_stands_behind_a_large_body_has_the_same_limit_as_behind_a_small_one(size):
    """Chunks of a byte or two may weigh more than their data; a trailer, and one line, may not."""
    body = b"%x\r\n" % size + b"x" * size + b"\r\n"
    fits, over = b"x: " + b"a" * 32_000 + b"\r\n", b"x: " + b"a" * 33_000 + b"\r\n"
    assert _chunks_status(body + b"0\r\n" + fits + b"\r\n") == 200
    assert _chunks_status(body + b"0\r\n" + over + b"\r\n") == 431
    assert _chunks_status(body + b"0\r\n" + b"x: y\r\n" * 6000 + b"\r\n") == 431
    assert _chunks_status(body + b"1;" + b"a" * 33_000 + b"\r\nx\r\n0\r\n\r\n") == 400


def _chunks_status(wire):
    """Return 200 for a body in chunks, else the status that refuses it, which is the same in pieces."""
    found = []
    for step in (len(wire), 1000, 997):
        reader = ChunkedReader()
        try:
            for at in range(0, len(wire), step):
                reader.feed(memoryview(wire[at : at + step]))
            found.append(200 if reader.done else None)
        except HttpError as refusal:
            found.append(refusal.response.status)
    assert len(set(found)) == 1, found
    return found[0]


def test_a_line_without_an_end_behind_a_large_body_is_not_kept():
    reader = ChunkedReader()
    reader.feed(memoryview(b"400000\r\n" + b"x" * 0x400000 + b"\r\n0\r\nx: "))
    reader.feed(memoryview(b"a" * 32_000))
    with pytest.raises(HttpError) as refusal:
        reader.feed(memoryview(b"a" * 1000))
    assert refusal.value.response.status == 431
