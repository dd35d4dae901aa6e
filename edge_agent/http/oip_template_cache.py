"""Requests that differ in nothing but the numbers of their tensors: parsed and answered like a form that is filled in.

A client sends the same JSON around its numbers with every request. What was parsed of it once, and the JSON around the
numbers of the answer it got, are kept and found again by its bytes. Everything else goes through `oip_codec`, which
knows nothing of this, and so did the first request of each form.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from edge_agent.answer import Answer
from edge_agent.http.messages import Body
from edge_agent.http.oip_codec import InferRequest, encode_answer, encode_response_template, holds_data, parse_request
from edge_agent.http.oip_json_numbers import DECODERS
from edge_agent.ports import Array
from edge_contracts.limits import KIB, MAX_REQUEST_JSON_BYTES
from edge_contracts.manifest import Manifest

MAX_FORMS: Final = 64
"""TemplateCache kept at once: a slot has few clients, with a tag or two each. When there are too many, all are
forgotten."""

MAX_FORM_BYTES: Final = 4 * KIB
"""JSON before or after the numbers that is longer makes no form."""

_DATA: Final = b'"data":'


class _ResponseTemplate(NamedTuple):
    """The JSON of a form's answers, with a gap at every second place for what is new each time; whose answers they are,
    and for each output name, dtype, shape and whether it is wanted in binary."""

    pieces: list[bytes]
    served_by: str
    model_sha256: str
    outputs: list[tuple[str, np.dtype[Any], tuple[int, ...], bool]]


class RequestTemplate:
    """One form, for one manifest."""

    __slots__ = ("response", "step", "tag", "wanted")

    def __init__(self, request: InferRequest) -> None:
        self.wanted = request.outputs
        self.tag = request.tag
        self.step = request.step
        self.response: _ResponseTemplate | None = None

    def tensors(self, body: Body, at: int) -> dict[str, Array] | None:
        """Return the tensors of a body whose first `at` bytes are this form's; None if the rest does not fit it."""
        raise NotImplementedError


class _BinaryTemplate(RequestTemplate):
    """All tensors are binary and follow the JSON."""

    __slots__ = ("_blanks", "_size")

    def __init__(self, request: InferRequest) -> None:
        super().__init__(request)
        self._blanks = [(name, array.dtype, array.shape, array.nbytes) for name, array in request.tensors.items()]
        self._size = sum(array.nbytes for array in request.tensors.values())

    def tensors(self, body: Body, at: int) -> dict[str, Array] | None:
        if len(body) != at + self._size:
            return None
        tensors: dict[str, Array] = {}
        for name, dtype, shape, size in self._blanks:
            array: Array = np.ndarray(shape, dtype, body, at)
            tensors[name] = array if array.flags.aligned else array.copy()
            at += size
        return tensors


class _JsonTemplate(RequestTemplate):
    """The only tensor is a flat list of JSON, with `after` behind it."""

    __slots__ = ("_after", "_decode", "_dtype", "_name", "_pack", "_shape")

    def __init__(self, request: InferRequest, after: bytes) -> None:
        super().__init__(request)
        ((name, array),) = request.tensors.items()
        self._name, self._dtype, self._shape, self._after = name, array.dtype, array.shape, after
        self._decode = DECODERS[array.dtype.kind].decode
        self._pack = struct.Struct(f"{array.size}{array.dtype.char}").pack  # NumPy's letters of native types are C's

    def tensors(self, body: Body, at: int) -> dict[str, Array] | None:
        if not body.endswith(self._after) or len(body) > MAX_REQUEST_JSON_BYTES:
            return None
        try:
            numbers = self._decode(memoryview(body)[at : len(body) - len(self._after)])
            return {self._name: np.ndarray(self._shape, self._dtype, self._pack(*numbers))}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, struct.error):
            return None  # no such list, too many numbers or too large ones: the long way says which


class TemplateHit(NamedTuple):
    """A request, and the template it fits: None if there is none, and then the codec encodes its answer."""

    request: InferRequest
    template: RequestTemplate | None


class TemplateCache:
    """The templates of one manifest's requests, in front of the codec: `lookup` first, and `remember` what the codec
    parsed where there was no hit."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._forms: dict[tuple[bool, bytes], RequestTemplate] = {}

    def lookup(self, body: Body, json_length: int | None) -> TemplateHit | None:
        """Return the request that a body is, as the codec would read it; None if no template is known that it fits."""
        is_list = json_length is None
        at = body.find(_DATA, 0, MAX_FORM_BYTES) + len(_DATA) if json_length is None else json_length
        form = self._forms.get((is_list, bytes(body[:at]))) if at <= MAX_FORM_BYTES else None
        tensors = None if form is None else form.tensors(body, at)
        if form is None or tensors is None:
            return None
        request = InferRequest(id=None, tensors=tensors, outputs=form.wanted, tag=form.tag, step=form.step)
        return TemplateHit(request, form)

    def remember(self, body: Body, json_length: int | None, request: InferRequest) -> TemplateHit:
        """Keep the template of a body which the codec has read as `request`, if it has one."""
        at = body.find(_DATA, 0, MAX_FORM_BYTES) + len(_DATA) if json_length is None else json_length
        form = None
        if request.id is None and at <= MAX_FORM_BYTES:  # an id is rarely used twice
            form = _list_form(request, body, at) if json_length is None else _binary_form(request, len(body) - at)
        if form is not None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[json_length is None, bytes(body[:at])] = form
        return TemplateHit(request, form)

    def encode(self, answer: Answer, form: RequestTemplate) -> tuple[bytes, int | None] | None:
        """Return what the codec would make of an answer; None where that is more than numbers in known places."""
        if answer.warnings or answer.prediction is not None or answer.nodes or answer.stream_start:
            return None
        response = form.response
        if response is None or answer.served_by != response.served_by or answer.model_sha256 != response.model_sha256:
            response = form.response = _response_template(answer, form.wanted, self._manifest)
        if response is None:
            return None
        news, blobs = [], []
        for name, dtype, shape, is_binary in response.outputs:
            array = answer.outputs.get(name)
            if array is None or array.dtype != dtype or array.shape != shape:
                return None
            if is_binary:
                blobs.append(array.tobytes())
            else:
                news.append(msgspec.json.encode(array.ravel().tolist()))
        news.append(b"%d" % answer.timing_us)
        pieces = response.pieces.copy()
        pieces[1::2] = news
        head = b"".join(pieces)
        return (b"".join((head, *blobs)), len(head)) if blobs else (head, None)


class TemplateCodec:
    """The codec with the cache in front of it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._cache = TemplateCache(manifest)

    def parse(self, body: Body, json_length: int | None) -> TemplateHit:
        """See `oip_codec.parse_request`, whose request this is. Raises TensorError."""
        hit = self._cache.lookup(body, json_length)
        if hit is not None:
            return hit
        return self._cache.remember(body, json_length, parse_request(body, json_length, self._manifest))

    def encode(self, answer: Answer, parsed: TemplateHit) -> tuple[bytes, int | None]:
        """See `oip_codec.encode_answer`, whose answer this is."""
        request, template = parsed
        encoded = None if template is None else self._cache.encode(answer, template)
        return encoded or encode_answer(answer, request, self._manifest)


def _binary_form(request: InferRequest, size: int) -> RequestTemplate | None:
    """Return the form of a request with `size` bytes behind its JSON; None if it has none."""
    arrays = request.tensors.values()
    # All of them must be binary; truth values are made from bytes one by one.
    if sum(array.nbytes for array in arrays) != size or any(not a.nbytes or a.dtype.kind == "b" for a in arrays):
        return None
    return _BinaryTemplate(request)


def _list_form(request: InferRequest, body: Body, at: int) -> RequestTemplate | None:
    """Return the form of a request in JSON whose `data` seems to begin at `at`; None if it has none."""
    end = body.find(b"]", at) + 1
    before, after = bytes(body[:at]), bytes(body[end:])
    if len(after) > MAX_FORM_BYTES or not before.endswith(_DATA) or not holds_data(before, after):
        return None
    ((_, array),) = request.tensors.items()
    return _JsonTemplate(request, after) if array.size else None


def _response_template(answer: Answer, wanted: dict[str, bool], manifest: Manifest) -> _ResponseTemplate | None:
    """Return the template of answers like this one; None if what is new in each of them is more than numbers."""
    arrays = {name: answer.outputs.get(name) for name in wanted}
    if answer.model_sha256 is None or any(array is None or array.dtype.kind not in "biuf" for array in arrays.values()):
        return None
    outputs = [(name, array.dtype, array.shape, wanted[name]) for name, array in arrays.items() if array is not None]
    pieces = encode_response_template(answer, wanted, manifest)
    with_gaps = [piece for pair in zip(pieces, [b""] * len(pieces), strict=True) for piece in pair]
    return _ResponseTemplate(with_gaps[:-1], answer.served_by, answer.model_sha256, outputs)
