"""Requests of a known form get what they would have got without one, whatever is in them and whoever answers."""

import json

import msgspec
import numpy as np
import pytest
from support.makers import bundles

from edge_agent import Runtime
from edge_agent.errors import TensorError
from edge_agent.http import oip_template_cache
from edge_agent.http.oip_codec import encode_answer, parse_request
from edge_agent.http.oip_template_cache import MAX_FORM_BYTES, MAX_FORMS, TemplateCodec, TemplateHit

ROWS = [row[None] for row in bundles.samples(4)[0]]
SIZE = 4 * 4


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms") / "b"
    models = [("fp32", bundles.nan_model()), ("small", bundles.scaled_model(0.5))]
    bundles.make_bundle(folder, models=models)
    with Runtime.open(folder) as runtime:
        yield runtime


def _head(*, binary=True, pad="", **more):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": SIZE}}
    return (
        json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}, **more}).encode() + pad.encode()
    )


def _answer(runtime, forms, head, x):
    """Return the answer's JSON without its time, and its bytes."""
    body = head + x.tobytes()
    parsed = forms.parse(body, len(head))
    data, length = forms.encode(runtime.infer(parsed.request.tensors), parsed)
    found = json.loads(data[:length])
    assert found["parameters"].pop("timing_us") >= 0
    return found, data[length:] if length is not None else b""


def _plain(runtime, head, x):
    request = parse_request(head + x.tobytes(), len(head), runtime.manifest)
    data, length = encode_answer(runtime.infer(request.tensors), request, runtime.manifest)
    found = json.loads(data[:length])
    found["parameters"].pop("timing_us")
    return found, data[length:] if length is not None else b""


@pytest.mark.parametrize(
    "head",
    [
        _head(),
        _head(pad=" "),
        _head(pad="   "),  # the tensor is not aligned
        _head(binary=False),
        _head(id="a"),
        _head(outputs=[{"name": "y"}]),
        _head(outputs=[{"name": "y", "parameters": {"binary_data": False}}]),
    ],
)
def test_every_answer_is_what_it_would_be_without_forms(runtime, head):
    forms = TemplateCodec(runtime.manifest)
    poison = np.float32([[150, 0, 0, 0]])
    for x in [*ROWS, poison, ROWS[0]]:  # the second rung answers the poison
        assert _answer(runtime, forms, head, x) == _plain(runtime, head, x)


def test_answers_of_another_rung_name_it(runtime):
    forms = TemplateCodec(runtime.manifest)
    served = [
        _answer(runtime, forms, _head(), x)[0]["parameters"]["served_by"]
        for x in (ROWS[0], ROWS[1], np.float32([[150, 0, 0, 0]]), ROWS[2])
    ]
    assert [name.rpartition("/")[2] for name in served] == ["fp32", "fp32", "small", "fp32"]


def test_each_form_gives_the_tag_it_was_met_with(runtime):
    forms = TemplateCodec(runtime.manifest)
    heads = [(tag, _head(parameters={"tag": tag})) for tag in ("line-1", "line-2", None)]
    after = [(tag, b'}], "parameters": {"tag": %s}}' % json.dumps(tag).encode()) for tag in ("line-1", "line-2", None)]
    for _ in range(3):
        for tag, head in heads:
            assert forms.parse(head + ROWS[0].tobytes(), len(head)).request.tag == tag
        for tag, end in after:
            assert forms.parse(_lists(b"[1, 2, 3, 4]", after=end), None).request.tag == tag
    known = {form.tag for form in forms._cache._forms.values()}
    assert known == {"line-1", "line-2", None}


def test_a_tensor_stays_what_it_was_when_the_next_request_comes(runtime):
    forms = TemplateCodec(runtime.manifest)
    head = _head()
    tensors = [forms.parse(head + x.tobytes(), len(head)).request.tensors["x"] for x in ROWS]
    assert all((tensor == x).all() and tensor.flags.aligned for tensor, x in zip(tensors, ROWS, strict=True))


@pytest.mark.parametrize("cut", [-1, 1, -SIZE])
def test_a_body_of_another_length_is_refused_as_ever(runtime, cut):
    forms = TemplateCodec(runtime.manifest)
    head = _head()
    forms.parse(head + ROWS[0].tobytes(), len(head))
    body = head + ROWS[0].tobytes() + b"x" if cut > 0 else (head + ROWS[0].tobytes())[:cut]
    with pytest.raises(TensorError, match="bytes"):
        forms.parse(body, len(head))
    with pytest.raises(TensorError, match="not within the body"):
        forms.parse(head[:-1], len(head))


def test_what_is_kept_is_bounded(runtime):
    forms = TemplateCodec(runtime.manifest)
    for number in range(3 * MAX_FORMS):
        head = _head(pad=" " * number)
        forms.parse(head + ROWS[0].tobytes(), len(head))
        assert len(forms._cache._forms) <= MAX_FORMS
    before = dict(forms._cache._forms)
    for head in (_head(pad=" " * MAX_FORM_BYTES), _head(id="of its own")):
        forms.parse(head + ROWS[0].tobytes(), len(head))
    assert forms._cache._forms == before


def _parsed(runtime):
    """Return what parses without any cache."""
    return lambda *body: TemplateHit(parse_request(*body, runtime.manifest), None)


def _lists(text, before=b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ', after=b"}]}"):
    return before + text + after


ROOM = b'{"parameters": {"data": [0]}, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data":'
SPLIT = b'{"inputs": [{"data":'
AFTER_SPLIT = b', "shape": [1, 4], "datatype": "FP32", "name": "x"}], "outputs": [{"name": "y"}]}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ', b"}]}"),
        (b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,4],"data":', b" }]}\n"),
        (b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1,4],"data":', b"}]}"),
        (b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,4],"data":', b"}]}"),
        (SPLIT, AFTER_SPLIT),
        (ROOM, b"}]}"),
        (b'{"id": "a", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ', b"}]}"),
        (SPLIT, b', "shape": [1, 4], "datatype": "FP32", "name": "x", "data": [1, 2, 3, 4]}]}'),
        (SPLIT, b', "shape": [1, 4], "datatype": "FP32", "name": "x"}], "parameters": {"tag": "line-2"}}'),
        (SPLIT, b', "shape": [1, 4], "datatype": "FP32", "name": "x"}], "parameters": {"tag": "line 2"}}'),
        (SPLIT, b', "shape": [1, 4], "datatype": "FP32", "name": "x"}], "parameters": {"binary_data_output": true}}'),
    ],
)
@pytest.mark.parametrize("forms_known", [False, True])
def test_numbers_in_json_are_read_as_they_would_be_without_forms(runtime, before, after, forms_known):
    forms = TemplateCodec(runtime.manifest)
    if forms_known:
        assert _outcome(lambda: forms.parse(_lists(b"[1, 2, 3, 4]", before, after), None).request) is not None
    texts = (
        *(b"[1, 2, 3, 4]", b"[0.5, -2, 1e3, 4]", b" [ 9,8,7,6 ] ", b"[1,2,3]", b"[1,2,3,4,5]", b"[]", b"[[1,2,3,4]]"),
        *(b"[1,2,3,[4]]", b"[1,2,3,null]", b'[1,2,3,"4"]', b"[true,false,true,true]", b"[1,2,3,4", b"1", b"{}", b""),
        *(
            b"[1e39,0,0,0]",
            b"[1e400,0,0,0]",
            b"[NaN,0,0,0]",
            b"[300,-1,0,0]",
            b"[99999999999999999999,0,0,0]",
            b"[-0.0,1,2,3]",
        ),
        *(b'[1,2,3,4]}],"x":[{"y":[1]', b'[1,2,3,4], "data": [5,6,7,8]', b"\xff[1,2,3,4]"),
    )
    for text in texts:
        body = _lists(text, before, after)
        right = _outcome(lambda body=body: parse_request(body, None, runtime.manifest))
        assert _outcome(lambda body=body: forms.parse(body, None).request) == right, text


def _outcome(parse):
    """Return what a parse returned or said, comparable."""
    try:
        request = parse()
    except TensorError as error:
        return str(error)
    tensors = {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in request.tensors.items()}
    return request.id, tensors, request.outputs, request.tag


@pytest.mark.parametrize(
    "after",
    [
        b"}]}",
        b'}], "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}',
        b'}], "outputs": [{"name": "y"}], "parameters": {"binary_data_output": true}}',
    ],
)
def test_numbers_in_json_are_answered_as_they_would_be_without_forms(runtime, after):
    forms = TemplateCodec(runtime.manifest)
    for numbers in (*(row[0].tolist() for row in ROWS), [150.0, 0, 0, 0], ROWS[0][0].tolist()):
        body = _lists(json.dumps(numbers).encode(), after=after)
        found, right = [], []
        for outcome, parse, encode in (
            (found, forms.parse, forms.encode),
            (right, _parsed(runtime), lambda answer, one: encode_answer(answer, one.request, runtime.manifest)),
        ):
            parsed = parse(body, None)
            data, length = encode(runtime.infer(parsed.request.tensors), parsed)
            answer = json.loads(data[:length])
            assert answer["parameters"].pop("timing_us") >= 0
            outcome += [answer, data[length:] if length is not None else None]
        assert found == right
    assert len(forms._cache._forms) == 1


def test_a_known_form_reads_numbers_with_nothing_but_its_own_decoder(runtime, monkeypatch):
    forms = TemplateCodec(runtime.manifest)
    forms.parse(_lists(b"[1, 2, 3, 4]"), None)
    monkeypatch.setattr(oip_template_cache, "parse_request", None)  # would fail
    assert forms.parse(_lists(b"[5, 6, 7, 8.5]"), None).request.tensors["x"].tolist() == [[5.0, 6.0, 7.0, 8.5]]


THREE = (("x", "FP32", np.float32, (1, 4)), ("when", "INT64", np.int64, (1, 2)), ("mask", "UINT8", np.uint8, (1, 3)))


def _of_three(runtime):
    """Return a manifest with three inputs of three sizes."""
    (x,) = runtime.manifest.inputs
    inputs = [
        msgspec.structs.replace(x, name=name, shape=(-1, shape[1]), dtype=np.dtype(dtype).name, sample=None)
        for name, _, dtype, shape in THREE
    ]
    return msgspec.structs.replace(runtime.manifest, inputs=tuple(inputs))


def test_each_tensor_of_a_known_form_is_read_where_it_lies(runtime):
    manifest = _of_three(runtime)
    forms = TemplateCodec(manifest)
    sizes = {name: {"binary_data_size": np.zeros(shape, dtype).nbytes} for name, _, dtype, shape in THREE}
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": sizes[name]} for name, kind, _, shape in THREE
    ]
    head = json.dumps({"inputs": described}).encode()
    head += b" " * (-len(head) % 8)  # so that the first ones are aligned and the last is not
    for number in range(3):
        sent = {name: np.full(shape, 10 * at + number, dtype) for at, (name, _, dtype, shape) in enumerate(THREE)}
        body = head + b"".join(array.tobytes() for array in sent.values())
        found = forms.parse(body, len(head)).request.tensors
        assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
            name: (array.dtype, array.tolist()) for name, array in sent.items()
        }
    assert len(forms._cache._forms) == 1
    assert forms._cache.lookup(body, len(head)) is not None
    assert forms._cache.lookup(body + b"x", len(head)) is None


@pytest.mark.parametrize("pad", range(8))
def test_tensors_are_aligned_wherever_they_lie(runtime, pad):
    forms = TemplateCodec(runtime.manifest)
    head = _head(pad=" " * pad)
    for x in ROWS:
        tensor = forms.parse(head + x.tobytes(), len(head)).request.tensors["x"]
        assert tensor.flags.aligned
        assert (tensor == x).all()


def test_much_behind_the_numbers_makes_no_form(runtime):
    for blanks, kept in ((MAX_FORM_BYTES - 3, 1), (MAX_FORM_BYTES - 2, 0)):
        forms = TemplateCodec(runtime.manifest)
        forms.parse(_lists(b"[1, 2, 3, 4]", after=b"}]}" + b" " * blanks), None)
        assert len(forms._cache._forms) == kept


def test_one_output_of_two_that_is_missing_leaves_the_answer_to_the_codec(runtime):
    (y,) = runtime.manifest.outputs
    two = msgspec.structs.replace(runtime.manifest, outputs=(y, msgspec.structs.replace(y, name="z")))
    answer = runtime.infer({"x": ROWS[0]})
    both = msgspec.structs.replace(answer, outputs=answer.outputs | {"z": answer.outputs["y"]})
    assert oip_template_cache._response_template(both, {"y": False, "z": False}, two) is not None
    assert oip_template_cache._response_template(answer, {"y": False, "z": False}, two) is None


def test_truth_values_and_empty_tensors_make_no_form(runtime):
    manifest = _of_three(runtime)
    x, when, mask = manifest.inputs
    for odd, kind, raw in ((msgspec.structs.replace(mask, dtype="bool"), "BOOL", b"\0\1\0"), (x, "FP32", b"")):
        shape = [1, 3] if raw else [0, 4]
        two = msgspec.structs.replace(manifest, inputs=(msgspec.structs.replace(odd, name="odd"), when))
        described = [
            {"name": "odd", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}},
            {"name": "when", "datatype": "INT64", "shape": [1, 2], "parameters": {"binary_data_size": 16}},
        ]
        head = json.dumps({"inputs": described}).encode()
        body = head + raw + np.int64([7, 8]).tobytes()
        forms = TemplateCodec(two)
        try:
            found = forms.parse(body, len(head)).request.tensors
        except TensorError:
            found = {}
        assert not forms._cache._forms
        if raw:
            assert (found["odd"].tolist(), found["when"].tolist()) == ([[False, True, False]], [[7, 8]])


def test_a_body_over_the_limit_of_json_is_read_the_long_way(runtime, monkeypatch):
    forms = TemplateCodec(runtime.manifest)
    body = _lists(b"[1, 2, 3, 4]")
    forms.parse(body, None)
    monkeypatch.setattr(oip_template_cache, "MAX_REQUEST_JSON_BYTES", len(body))
    assert forms._cache.lookup(body, None) is not None
    assert forms._cache.lookup(_lists(b"[1, 2, 3, 45]"), None) is None


def test_answers_of_another_file_under_the_same_name_get_a_new_form(runtime):
    forms = TemplateCodec(runtime.manifest)
    head = _head()
    parsed = forms.parse(head + ROWS[0].tobytes(), len(head))
    parsed = forms.parse(head + ROWS[0].tobytes(), len(head))
    answer = runtime.infer(parsed.request.tensors)
    other = msgspec.structs.replace(answer, model_sha256="f" * 64)
    for one in (answer, other, answer, other):
        data, length = forms.encode(one, parsed)
        assert json.loads(data[:length])["parameters"]["model_sha256"] == one.model_sha256


def test_an_answer_that_is_not_there_or_no_numbers_is_left_to_the_codec(runtime):
    forms = TemplateCodec(runtime.manifest)
    head = _head()
    for _ in range(2):
        parsed = forms.parse(head + ROWS[0].tobytes(), len(head))
    answer = runtime.infer(parsed.request.tensors)
    cache, form = forms._cache, parsed.template
    assert cache.encode(msgspec.structs.replace(answer, outputs={}), form) is None
    words = {"y": np.array(["a", "b", "c"])}
    assert cache.encode(msgspec.structs.replace(answer, outputs=words), form) is None
    assert cache.encode(msgspec.structs.replace(answer, model_sha256=None), form) is None
    assert cache.encode(msgspec.structs.replace(answer, warnings=("w",)), form) is None
    assert cache.encode(msgspec.structs.replace(answer, stream_start=True), form) is None
    assert cache.encode(answer, form) is not None


def test_a_list_behind_a_declared_length_is_refused_as_ever(runtime):
    """The bytes before the numbers are a known form's, but here they are said to be all of the JSON."""
    forms = TemplateCodec(runtime.manifest)
    body = _lists(b"[1, 2, 3, 4]")
    forms.parse(body, None)
    with pytest.raises(TensorError):
        forms.parse(body, body.index(b'"data":') + 7)
