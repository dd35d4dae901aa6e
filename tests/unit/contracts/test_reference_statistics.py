"""Thresholds and histograms in a manifest: what does not fit is refused by its field."""

from __future__ import annotations

import msgspec
import pytest
from support.makers import contract_examples

from edge_contracts.errors import ContractError
from edge_contracts.manifest import check_manifest
from edge_contracts.reference import Feature, Histogram

MANIFEST = contract_examples.MANIFEST
INT8 = MANIFEST.variants[0]
THRESHOLD = INT8.conformal[0]
assert INT8.reference is not None
assert MANIFEST.reference is not None


def refused(variant: dict[str, object]) -> str:
    changed = msgspec.structs.replace(INT8, **variant)
    with pytest.raises(ContractError) as caught:
        check_manifest(msgspec.structs.replace(MANIFEST, variants=(changed, *MANIFEST.variants[1:])))
    return str(caught.value)


def test_a_threshold_of_another_file_is_refused() -> None:
    other = msgspec.structs.replace(THRESHOLD, model_sha256="0" * 64)
    assert "variants[0].conformal[0].model_sha256" in refused({"conformal": (other,)})


def test_a_threshold_that_so_few_samples_cannot_prove_is_refused() -> None:
    assert "conformal[0].alpha" in refused({"conformal": (msgspec.structs.replace(THRESHOLD, samples=8),)})
    check_manifest(MANIFEST)


def test_an_endless_threshold_is_refused() -> None:
    assert "conformal[0].tau" in refused({"conformal": (msgspec.structs.replace(THRESHOLD, tau=float("inf")),)})


@pytest.mark.parametrize(
    ("histogram", "named"),
    [
        (Histogram(edges=(0.5, 0.5), counts=(100, 300, 500)), "confidence.edges"),
        (Histogram(edges=(0.5, float("nan")), counts=(100, 300, 500)), "confidence.edges"),
        (Histogram(edges=(0.5,), counts=(100, 300, 500)), "confidence.counts"),
        (Histogram(edges=(0.5, 0.75), counts=(100, 300, 501)), "confidence.counts"),
    ],
)
def test_a_histogram_that_does_not_add_up_is_refused(histogram: Histogram, named: str) -> None:
    reference = msgspec.structs.replace(INT8.reference, confidence=histogram)
    assert f"variants[0].reference.{named}" in refused({"reference": reference})


def test_answers_by_class_that_do_not_add_up_are_refused() -> None:
    reference = msgspec.structs.replace(INT8.reference, classes=(1, 2))
    assert "reference.classes" in refused({"reference": reference})


@pytest.mark.parametrize(
    ("feature", "named"),
    [
        ({"input": "other"}, "features[0].input"),
        ({"index": 3}, "features[0].index"),
        ({"statistic": "element"}, "features[0].index"),
    ],
)
def test_a_feature_of_nothing_is_refused(feature: dict[str, object], named: str) -> None:
    made: Feature = msgspec.structs.replace(MANIFEST.reference.features[0], **feature)
    reference = msgspec.structs.replace(MANIFEST.reference, features=(made,))
    with pytest.raises(ContractError) as caught:
        check_manifest(msgspec.structs.replace(MANIFEST, reference=reference))
    assert f"manifest.reference.{named}" in str(caught.value)
