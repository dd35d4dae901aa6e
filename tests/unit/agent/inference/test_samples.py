"""Sample archives under attack, the mapping, and prediction in the batches a device uses."""

import io
import zipfile

import numpy as np
import pytest
from support.makers import bundles

from edge_agent.engines.registry import engine_for
from edge_agent.errors import EngineError
from edge_agent.inference.sample_runs import predict
from edge_agent.inference.samples import bind, read_arrays, to_model, write_arrays
from edge_agent.ports import EngineSettings, TensorInfo
from edge_contracts import limits
from edge_contracts.errors import BundleError
from edge_contracts.manifest import Input, SampleMapping


def _input(dtype, sample, offset=0.0, scale=1.0):
    mapping = SampleMapping(dtype=sample, offset=offset, scale=scale)
    return Input(name="x", dtype=dtype, shape=(-1, 3), sample=mapping)


def test_arrays_survive_writing_and_equal_arrays_are_equal_bytes(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "v/output_0": np.float32([1.5]), "f": np.asfortranarray(np.eye(3))}
    write_arrays(tmp_path / "1.npz", arrays)
    write_arrays(tmp_path / "2.npz", arrays)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    found = read_arrays(tmp_path / "1.npz", what="set")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_numpy_writes_is_read(tmp_path):
    np.savez(tmp_path / "n.npz", x=np.ones((2, 2), np.int8), y=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    found = read_arrays(tmp_path / "n.npz", what="set")
    np.testing.assert_array_equal(found["y"], np.arange(6.0).reshape(2, 3))


def test_a_pickle_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    np.savez(tmp_path / "p.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(BundleError, match=r"set\[x\]"):
        read_arrays(tmp_path / "p.npz", what="set")
    assert not (tmp_path / "exploded").exists()


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        for _ in range(limits.MAX_ARCHIVE_BYTES // limits.MIB + 1):
            member.write(bytes(limits.MIB))
    with pytest.raises(BundleError, match="bytes unpacked"):
        read_arrays(tmp_path / "b.npz", what="set")


def test_too_many_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        for index in range(limits.MAX_ARCHIVE_MEMBERS + 1):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(BundleError, match="arrays, over"):
        read_arrays(tmp_path / "m.npz", what="set")


def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    data = io.BytesIO()
    np.lib.format.write_array(data, np.zeros(4, np.float32))
    good = data.getvalue()
    lies = [good.replace(b"(4,), }", lie) for lie in (b"(99,),}", b"(-4,),}", b"(4,  , ", b"(9,9) }")]
    for content in (*lies, good[:-4], b"nonsense", b""):
        with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(BundleError, match=r"set\[x\]"):
            read_arrays(tmp_path / "l.npz", what="set")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no")
    for name in ("x.npz", "gone.npz"):
        with pytest.raises(BundleError, match="set: cannot be read"):
            read_arrays(tmp_path / name, what="set")


@pytest.mark.parametrize(
    ("tensor", "x", "fed"),
    [
        (_input("float32", "uint8", 127.0, 1 / 128), np.uint8([127, 255, 0]), np.float32([0, 1, -127 / 128])),
        (_input("float32", "uint8", 127.0, 1 / 128), np.float32([0.5, 2, 3]), np.float32([0.5, 2, 3])),
        (_input("float32", "float32", 1.0, 2.0), np.float32([1, 2, 3]), np.float32([0, 2, 4])),
        (_input("float32", "float32"), np.float32([1, 2, 3]), np.float32([1, 2, 3])),
        (_input("int8", "float32"), np.float32([1.5, 2.5, -300]), np.int8([2, 2, -128])),
        (_input("int64", "float64"), np.float64([1, 1e300, -1e300]), np.int64([1, 2**63 - 1024, -(2**63)])),
        (_input("int32", "uint8"), np.uint8([1, 2, 255]), np.int32([1, 2, 255])),
    ],
)
def test_the_mapping(tensor, x, fed):
    result = to_model(x, tensor)
    assert result.dtype == fed.dtype
    np.testing.assert_array_equal(result, fed)


def test_prediction_fills_up_the_last_batch_of_a_fixed_size(tmp_path):
    made = bundles.make_bundle(tmp_path / "b")
    session = engine_for("onnx").load(made.folder / "models/fp32.onnx", EngineSettings())
    fixed = Input(name="x", dtype="float32", shape=(4, 4), sample=SampleMapping(dtype="float32"))
    manifest = type(made.manifest)(**bundles.fields_of(made) | {"inputs": (fixed,)})
    x, y = bundles.samples(6)
    (outputs,) = predict(session, manifest, [x])
    assert outputs.shape == (6, 3)
    assert (outputs.argmax(axis=1) == y).all()


def test_tensors_bind_by_name_and_else_by_position():
    declared = [TensorInfo(name=name, dtype="float32", shape=(-1,)) for name in ("b", "a")]
    assert bind(declared, [("a", "float32"), ("b", "float32")], what="input") == ("a", "b")
    assert bind(declared, [("x", "float32"), ("y", "float32")], what="input") == ("b", "a")
    with pytest.raises(EngineError, match="input x"):
        bind(declared, [("x", "int8"), ("y", "float32")], what="input")
    with pytest.raises(EngineError, match="the model has 2"):
        bind(declared, [("x", "float32")], what="input")
