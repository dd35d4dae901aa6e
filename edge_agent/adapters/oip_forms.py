"""Requests that differ in nothing but their binary tensors: parsed and answered like a form that is filled in.

A client of the binary tensor data extension sends the same JSON with every request. What was parsed of it once, and
the JSON of the answer it got, are kept and found again by its bytes. Everything else goes through `adapters.oip`, and
so did the first request of each form.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from edge_agent.adapters.oip import InferRequest, encode_answer, parse_request
from edge_agent.answer import Answer
from edge_agent.ports import Array
from edge_contracts.limits import KIB
from edge_contracts.manifest import Manifest

MAX_FORMS: Final = 16
"""Forms kept at once: a slot has few clients. When there are too many, all are forgotten."""

MAX_FORM_BYTES: Final = 4 * KIB


class _Blank(NamedTuple):
    """Where a tensor is in a body."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class _Letter(NamedTuple):
    """The JSON of a form's answers, around the one number in it that is new each time; and whose answers they are."""

    before: bytes
    after: bytes
    served_by: str
    model_sha256: str
    outputs: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


class Form:
    """One form, for one manifest."""

    __slots__ = ("blanks", "letter", "size", "wanted")

    def __init__(self, blanks: tuple[_Blank, ...], size: int, wanted: dict[str, bool]) -> None:
        self.blanks, self.size, self.wanted = blanks, size, wanted
        self.letter: _Letter | None = None


class Forms:
    """The forms of one manifest's requests."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._forms: dict[bytes, Form] = {}

    def parse(self, body: bytes, json_length: int | None) -> InferRequest:
        """See `oip.parse_request`, whose request this is. Raises TensorError."""
        if json_length is None:
            return parse_request(body, None, self._manifest)
        form = self._forms.get(body[:json_length]) if json_length <= MAX_FORM_BYTES else None
        if form is None or len(body) != form.size:
            return self._parse_first(body, json_length)
        tensors: dict[str, Array] = {}
        for name, dtype, shape, offset in form.blanks:
            array: Array = np.ndarray(shape, dtype, body, offset)
            tensors[name] = array if array.flags.aligned else array.copy()
        return InferRequest(id=None, tensors=tensors, outputs=form.wanted, form=form)

    def encode(self, answer: Answer, request: InferRequest) -> tuple[bytes, int | None]:
        """See `oip.encode_answer`, whose answer this is."""
        form = request.form
        if form is None or answer.warnings or answer.prediction is not None or answer.nodes:
            return encode_answer(answer, request, self._manifest)
        letter = form.letter
        if letter is None or answer.served_by != letter.served_by or answer.model_sha256 != letter.model_sha256:
            return self._encode_first(answer, request, form)
        parts = [b"%b%d%b" % (letter.before, answer.timing_us, letter.after)]
        for name, dtype, shape in letter.outputs:
            array = answer.outputs.get(name)
            if array is None or array.dtype != dtype or array.shape != shape:
                return encode_answer(answer, request, self._manifest)
            parts.append(array.tobytes())
        return b"".join(parts), len(parts[0])

    def _parse_first(self, body: bytes, json_length: int) -> InferRequest:
        request = parse_request(body, json_length, self._manifest)
        if request.id is not None or json_length > MAX_FORM_BYTES:  # an id is rarely used twice
            return request
        blanks, offset = [], json_length
        for name, array in request.tensors.items():
            if not array.nbytes or array.dtype.kind == "b":  # truth values are made from bytes one by one
                return request
            blanks.append(_Blank(name, array.dtype, array.shape, offset))
            offset += array.nbytes
        if offset == len(body):  # so all of them are binary
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[body[:json_length]] = Form(tuple(blanks), len(body), request.outputs)
        return request

    def _encode_first(self, answer: Answer, request: InferRequest, form: Form) -> tuple[bytes, int | None]:
        data, json_length = encode_answer(answer, request, self._manifest)
        json = data[:json_length]
        number = b'"timing_us":%d,' % answer.timing_us  # no text can hold it: quotes within one are escaped
        if json_length is None or answer.model_sha256 is None or json.count(number) != 1:
            return data, json_length
        outputs = []
        for name, is_binary in request.outputs.items():
            array = answer.outputs.get(name)
            if array is None or not is_binary or array.dtype.kind not in "biuf":  # texts have no fixed size
                return data, json_length
            outputs.append((name, array.dtype, array.shape))
        before, _, after = json.partition(number)
        form.letter = _Letter(
            before + b'"timing_us":', b"," + after, answer.served_by, answer.model_sha256, tuple(outputs)
        )
        return data, json_length
