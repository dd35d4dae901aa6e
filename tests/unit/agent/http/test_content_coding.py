"""Compressed bodies: what is accepted, and that none of them takes more memory than a limit."""

import gzip
import zlib

import pytest

from edge_agent.errors import TensorError
from edge_agent.http.content_coding import (
    CHOSEN_BYTES,
    MAX_MEMBERS,
    USUAL_BYTES,
    accepted,
    coding_of,
    compress,
    decompress,
)
from edge_agent.http.messages import HttpError

BODY = b'{"inputs": []}' * 100


def bare(data):
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY)), ("deflate", bare(BODY))],
    ids=["gzip", "zlib", "bare"],  # gzip's bytes hold the time, and parallel collection compares the names
)
def test_a_body_is_what_it_was_before_it_was_compressed(coding, packed):
    assert decompress(packed, coding, len(BODY)) == BODY
    with pytest.raises(TensorError, match="ends early"):
        decompress(packed[:-6], coding, len(BODY))
    with pytest.raises(TensorError, match="behind the end"):
        decompress(packed + b"x", coding, len(BODY))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_no_such_data_is_named(coding):
    for data in (b"", b"x", BODY):
        with pytest.raises(TensorError, match=r"content-encoding|ends early"):
            decompress(data, coding, 1000)


@pytest.mark.parametrize(("coding", "packer"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare)])
def test_a_bomb_ends_at_the_limit(coding, packer):
    with pytest.raises(HttpError) as caught:
        decompress(packer(bytes(10_000_000)), coding, 100_000)
    assert caught.value.response.status == 413


def test_gzip_may_come_in_members_as_its_rfc_says():
    parts = [BODY[:100], b"", BODY[100:700], BODY[700:]]
    packed = b"".join(gzip.compress(part) for part in parts)
    assert decompress(packed, "gzip", len(BODY)) == BODY
    with pytest.raises(TensorError, match="ends early"):
        decompress(packed[:-6], "gzip", len(BODY))
    with pytest.raises(TensorError, match="behind the end"):
        decompress(packed + b"x", "gzip", len(BODY))
    with pytest.raises(TensorError, match="behind the end"):
        decompress(zlib.compress(BODY) * 2, "deflate", 2 * len(BODY))


def test_members_share_one_limit_and_are_few():
    packed = gzip.compress(bytes(1000)) * MAX_MEMBERS
    assert len(decompress(packed, "gzip", 1000 * MAX_MEMBERS)) == 1000 * MAX_MEMBERS
    with pytest.raises(HttpError) as caught:
        decompress(packed, "gzip", 1000 * MAX_MEMBERS - 1)
    assert caught.value.response.status == 413
    with pytest.raises(TensorError, match="behind the end"):
        decompress(packed + gzip.compress(b""), "gzip", 1_000_000)


def test_exactly_the_limit_is_no_bomb():
    assert decompress(gzip.compress(BODY), "gzip", len(BODY)) == BODY
    with pytest.raises(HttpError):
        decompress(gzip.compress(BODY), "gzip", len(BODY) - 1)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_is_read_by_everybody(coding):
    packed = compress(BODY, coding)
    assert (gzip.decompress(packed) if coding == "gzip" else zlib.decompress(packed)) == BODY


@pytest.mark.parametrize(
    ("named", "coding"),
    [(b"gzip", "gzip"), (b"X-GZIP", "gzip"), (b"Deflate", "deflate"), (b"identity", None), (b"", None)],
)
def test_codings_of_requests(named, coding):
    assert coding_of({b"content-encoding": named}) == coding


@pytest.mark.parametrize(
    ("named", "wish"),
    [
        (b"gzip", ("gzip", CHOSEN_BYTES)),
        (b"deflate", ("deflate", CHOSEN_BYTES)),
        (b"gzip, deflate", ("gzip", USUAL_BYTES)),
        (b"gzip, deflate, br, zstd", ("gzip", USUAL_BYTES)),
        (b"gzip;q=0.5, deflate", ("deflate", USUAL_BYTES)),
        (b"gzip;q=0", None),
        (b"gzip;q=x", None),
        (b"br, *", None),
        (b"identity", None),
        (b"", None),
    ],
)
def test_what_a_client_accepts_and_from_which_size_on(named, wish):
    assert accepted({b"accept-encoding": named}) == wish
