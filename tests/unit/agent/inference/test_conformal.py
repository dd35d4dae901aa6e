"""Conformal sets on the device: the scores against their definitions, coverage on fresh samples, and abstaining."""

import hashlib
import json

import msgspec
import numpy as np
import pytest
from support.makers import bundles
from support.sites.worker_host import ladder_of

from edge_agent import Runtime
from edge_agent.config.inference_options import Certainty
from edge_agent.inference.conformal import Predictor, lac, members, predictor, raps, threshold_of
from edge_agent.processing.activations import softmax
from edge_contracts.errors import ContractError
from edge_contracts.manifest import ConformalThreshold, Output
from edge_contracts.reference import ConformalThreshold as Threshold

LINEAR = [("fp32", bundles.linear_model())]


def _threshold(tau, score="lac", alpha=0.1, sha256=None, **more):
    sha256 = sha256 or _sha256(LINEAR[0][1])
    return ConformalThreshold(score=score, alpha=alpha, tau=tau, samples=100, model_sha256=sha256, **more)


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _bundle(folder, *thresholds, **manifest):
    return bundles.make_bundle(folder, models=LINEAR, variant={"conformal": thresholds}, **manifest)


def _by_definition(row, k, penalty, free_ranks):
    """RAPS of class k, written as in the paper: ranks from 1, ties to the lower index."""
    order = sorted(range(len(row)), key=lambda c: (-row[c], c))
    rank = order.index(k) + 1
    return sum(row[c] for c in order[:rank]) + penalty * max(0, rank - free_ranks)


def test_raps_is_its_definition():
    p = softmax(np.random.default_rng(0).normal(size=(50, 6)))
    p[0] = 1 / 6  # all tied
    scores = raps(p, penalty=0.05, free_ranks=2)
    for row in range(50):
        for k in range(6):
            assert scores[row, k] == pytest.approx(_by_definition(p[row], k, 0.05, 2))


@pytest.mark.parametrize("score", ["lac", "raps"])
@pytest.mark.parametrize("alpha", [0.1, 0.05])
def test_sets_hold_the_truth_as_often_as_promised(score, alpha):
    rng = np.random.default_rng(1)
    p = softmax(rng.normal(scale=1.5, size=(6000, 8)))
    y = np.array([rng.choice(8, p=row) for row in p])
    own = (lac(p) if score == "lac" else raps(p, penalty=0.01, free_ranks=2))[np.arange(6000), y]
    tau = threshold_of(own[:2000], alpha)
    threshold = Threshold(
        score=score, alpha=alpha, tau=tau, samples=2000, model_sha256="0" * 64, penalty=0.01, free_ranks=2
    )
    covered = members(p[2000:], threshold)[np.arange(4000), y[2000:]].mean()
    noise = 3 * np.sqrt(alpha * (1 - alpha) * (1 / 2000 + 1 / 4000))
    assert covered >= 1 - alpha - noise
    assert score == "raps" or covered <= 1 - alpha + noise  # where RAPS would leave a set empty, ours has one


def test_the_likeliest_class_is_in_every_set():
    p = np.array([[0.4, 0.35, 0.25]])
    assert members(p, _threshold(0.0)).tolist() == [[True, False, False]]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_a_lone_sample_gets_the_set_it_would_have_got_among_others(kind, tau):
    rows = np.random.default_rng(3).normal(size=(400, 5)).astype(np.float32)
    rows = rows if kind == "logits" else softmax(rows.astype(np.float64)).astype(np.float32)
    one = Predictor(_threshold(tau), Output(name="y", dtype="float32", shape=(-1, 5), kind=kind))
    together = one.predict({"y": rows}).sets
    assert [one.predict({"y": row[None]}).sets[0] for row in rows] == list(together)


def test_the_smallest_sufficient_set_is_chosen(tmp_path):
    made = _bundle(
        tmp_path / "b", _threshold(0.5), _threshold(0.7, alpha=0.05), _threshold(0.9, score="raps", alpha=0.05)
    )
    variant = made.manifest.variants[0]
    x = {"y": np.float32([[1.0, 0.9, 0.0]])}
    assert predictor(made.manifest, variant, 0.9).predict(x).coverage == pytest.approx(0.9)
    assert predictor(made.manifest, variant, 0.95).predict(x).coverage == pytest.approx(0.95)
    assert predictor(made.manifest, variant, 0.99) is None


def test_a_threshold_of_another_variant_is_refused_by_its_hash(tmp_path):
    with pytest.raises(ContractError, match="belongs to another file"):
        _bundle(tmp_path / "b", _threshold(0.5, sha256="1" * 64))


def test_thresholds_left_from_before_a_variant_was_made_anew_are_refused(tmp_path):
    made = _bundle(tmp_path / "b", _threshold(0.5))
    (tmp_path / "b" / "models/fp32.onnx").write_bytes(bundles.scaled_model(0.5))
    with pytest.raises(ContractError, match="belongs to another file"):
        bundles.seal(tmp_path / "b", bundles.fields_of(made))


def test_a_predictor_is_never_made_of_another_variants_threshold(tmp_path):
    two = [("fp32", bundles.linear_model()), ("small", bundles.scaled_model(0.5))]
    made = bundles.make_bundle(tmp_path / "b", models=two)
    stale = msgspec.structs.replace(made.manifest.variants[1], conformal=(_threshold(0.5),))
    with pytest.raises(ContractError, match="another file") as refused:
        predictor(made.manifest, stale, 0.9)
    assert refused.value.subject == "variant small"


def test_an_answer_says_what_is_certain_and_one_too_uncertain_is_not_given(tmp_path):
    _bundle(tmp_path / "b", _threshold(0.7))
    sure, unsure = np.float32([[1, 0, 0, 0]]), np.float32([[0.02, 0.01, 0.02, 0]])
    with Runtime.open(tmp_path / "b", certainty=Certainty(coverage=0.9, abstain_over=1)) as runtime:
        answer = runtime.infer({"x": sure})
        assert answer.prediction.sets == ((0,),)
        assert not answer.abstained
        answer = runtime.infer({"x": unsure})
        assert answer.abstained
        assert answer.outputs == {}
        assert len(answer.prediction.sets[0]) > 1
        assert runtime.tally.counters["abstained"] == 1
    with Runtime.open(tmp_path / "b", certainty=Certainty(coverage=0.9)) as runtime:
        assert not runtime.infer({"x": unsure}).abstained


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_batch_abstains_for_its_most_uncertain_sample(tmp_path, order):
    _bundle(tmp_path / "b", _threshold(0.7))
    both = np.float32([[1, 0, 0, 0], [0.02, 0.01, 0.02, 0]])[list(order)]
    with Runtime.open(tmp_path / "b", certainty=Certainty(coverage=0.9, abstain_over=1)) as runtime:
        answer = runtime.infer({"x": both})
        sizes = [len(one) for one in answer.prediction.sets]
        assert (min(sizes), max(sizes)) == (1, answer.prediction.largest)
        assert answer.prediction.largest > 1
        assert answer.abstained


def test_without_a_threshold_that_covers_enough_it_answers_and_says_so(tmp_path):
    made = _bundle(tmp_path / "b", _threshold(0.6))
    told = []
    runtime = Runtime(
        ladder_of(made),
        certainty=Certainty(coverage=0.99),
        on_fault=lambda _, reason, text: told.append((reason, text)),
    )
    runtime.warm()
    assert runtime.infer({"x": np.float32([[1, 0, 0, 0]])}).prediction is None
    assert [reason for reason, _ in told] == ["certainty"]
    assert "0.99" in told[0][1]


def test_residuals_give_a_width(tmp_path):
    outputs = (Output(name="y", dtype="float32", shape=(-1, 3), kind="values"),)
    _bundle(tmp_path / "b", _threshold(0.25, score="absolute_residual"), outputs=outputs)
    with Runtime.open(tmp_path / "b", certainty=Certainty(coverage=0.9, abstain_over=1)) as runtime:
        answer = runtime.infer({"x": np.float32([[1, 0, 0, 0]])})
        assert (answer.prediction.width, answer.abstained) == (0.25, False)


def test_over_http_the_sets_are_parameters_of_the_answer(tmp_path):
    from edge_agent.http.oip_codec import encode_answer, parse_request

    _bundle(tmp_path / "b", _threshold(0.7))
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.02, 0.01, 0.02, 0]}]}'
    with Runtime.open(tmp_path / "b", certainty=Certainty(coverage=0.9)) as runtime:
        request = parse_request(body, None, runtime.manifest)
        data, _ = encode_answer(runtime.infer(request.tensors), request, runtime.manifest)
    parameters = json.loads(data)["parameters"]
    assert parameters["coverage"] == pytest.approx(0.9)
    assert json.loads(parameters["prediction_sets"]) == [[0, 1, 2]]
