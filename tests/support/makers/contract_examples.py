"""One fully filled example of every contract, and a strategy that makes any value of a contract from its type alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from edge_contracts.answering import Over, Softmax, TopK
from edge_contracts.channel import Channel, ChannelRelease, Family, Gates, MaintenanceWindow, Retry, RetryRule
from edge_contracts.delta import DeltaEntry, Deltas
from edge_contracts.enrollment import CertificateAnswer, CertificateRequest, Claim
from edge_contracts.guards import FeatureGuard
from edge_contracts.job import Job
from edge_contracts.manifest import (
    Budgets,
    EngineFloor,
    FileEntry,
    Input,
    InputGuard,
    Judged,
    LastResort,
    Lineage,
    Manifest,
    Output,
    OutputFloor,
    OutputGuard,
    Requirements,
    SampleMapping,
    SampleSet,
    ScoreMap,
    Variant,
)
from edge_contracts.pipeline import CropsNode, MeanNode, ModelNode, Pipeline, PipelineInput, VoteNode, WindowNode
from edge_contracts.processing import Frames, Normalize
from edge_contracts.profile import Board, DeviceProfile, GovernorThresholds, ModelBudget, Threshold
from edge_contracts.reference import (
    AnswerReference,
    Confidence,
    ConformalThreshold,
    Feature,
    Histogram,
    InputReference,
)
from edge_contracts.selector import Selector
from edge_contracts.shadow import ShadowCounts, ShadowSummary
from edge_contracts.state import Installed, Presence, ReportedState, SlotState
from edge_contracts.telemetry import Event, TelemetryWindow, Tombstone
from edge_contracts.transfer import Hint, Request, Response
from edge_contracts.turns import Roster, RosterGroup


def digest(text: str) -> str:
    """Return a SHA-256 that is the same in every run."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_entry(path: str, size: int, chunk_size: int = 65536) -> FileEntry:
    """Return an entry whose digests are made up and whose chunk count is right."""
    pieces = -(-size // chunk_size)
    chunks = tuple(digest(f"{path}#{index}") for index in range(pieces))
    return FileEntry(path=path, size=size, sha256=digest(path), chunks=chunks)


MANIFEST = Manifest(
    schema=4,
    name="har",
    version="1.2.0",
    created="2026-11-22T06:00:00Z",
    metric="top1",
    judged=(Judged(output="scores", metric="top1", original=0.8125),),
    labels=("walking", "sitting"),
    license="BSD-3-Clause",
    inputs=(
        Input(
            name="window",
            dtype="float32",
            shape=(-1, 6, 100),
            sample=SampleMapping(
                dtype="int16",
                offset=0.5,
                scale=0.0078125,
                shape=(-1, 600),
                steps=(Frames(length=100, hop=100), Normalize(mean=(0.25,), std=(2.0,))),
            ),
            guard=InputGuard(
                minimum=-4.0,
                maximum=4.0,
                out_of_range="clip",
                axis=1,
                features=(
                    FeatureGuard(index=1, name="state", categories=(0.0, 1.0, 4.0), action="reject"),
                    FeatureGuard(index=3, minimum=-0.5, action="fallback"),
                ),
            ),
        ),
        Input(name="rate", dtype="int64", shape=(), sample=SampleMapping(dtype="int64"), constant=(16000,)),
        Input(name="state", dtype="float32", shape=(2, 1, 64), sample=SampleMapping(dtype="float32"), feedback="next"),
    ),
    outputs=(
        Output(name="scores", dtype="float32", shape=(-1, 2), kind="logits", guard=OutputGuard(minimum=-50.0)),
        Output(name="next", dtype="float32", shape=(2, -1, 64)),
    ),
    variants=(
        Variant(
            id="int8",
            file="models/int8.onnx",
            format="onnx",
            recipe="recipes/int8.toml",
            size=70000,
            score=0.81,
            min_score=0.78,
            drop=0.4,
            agreement=0.99,
            latency_ms=0.25,
            peak_memory_mb=3.5,
            tolerance=0.05,
            confidence=Confidence(energy=-1.25, max_softmax=0.4),
            conformal=(
                ConformalThreshold(
                    score="raps",
                    alpha=0.1,
                    tau=0.625,
                    samples=500,
                    model_sha256=digest("models/int8.onnx"),
                    penalty=0.01,
                    free_ranks=2,
                    checked=400,
                    coverage=0.91,
                    set_size=1.25,
                ),
            ),
            reference=AnswerReference(
                model_sha256=digest("models/int8.onnx"),
                samples=900,
                confidence=Histogram(edges=(0.5, 0.75), counts=(100, 300, 500)),
                classes=(400, 500),
            ),
            score_maps=(ScoreMap(of="probabilities", own=(0.0, 0.375, 1.0), original=(0.0, 0.5, 1.0)),),
            floors=(OutputFloor(output="scores", relative_error=0.25),),
            judged=(0.8125,),
        ),
        Variant(id="float32", file="models/float32.onnx", format="onnx", size=130000),
    ),
    golden=SampleSet(file="golden.npz", samples=8),
    probe=SampleSet(file="probe.npz", samples=64),
    report="report.json",
    requirements=Requirements(
        engines=(EngineFloor(name="onnxruntime", minimum="1.17"),), architectures=("x86_64", "aarch64"), memory_mb=64.0
    ),
    budgets=Budgets(latency_ms=20.0, memory_mb=32.0, load_s=5.0),
    last_resort=LastResort(kind="constant", values=(0.5, 0.5), fresh_s=30.0),
    reference=InputReference(
        samples=900,
        features=(
            Feature(input="window", statistic="mean", histogram=Histogram(edges=(0.0,), counts=(450, 450))),
            Feature(input="window", statistic="element", index=5, histogram=Histogram(edges=(-1.5,), counts=(0, 900))),
        ),
    ),
    answer=(
        Softmax(of="scores", name="probabilities"),
        TopK(of="probabilities", name="best", k=2),
        Over(of="probabilities", name="sure", threshold=0.75),
    ),
    lineage=Lineage(source_sha256=digest("source"), data_sha256=digest("data"), tools={"onnxruntime": "1.31.1"}),
    files=(
        file_entry("models/int8.onnx", 70000),
        file_entry("models/float32.onnx", 130000),
        file_entry("recipes/int8.toml", 300),
        file_entry("golden.npz", 4096),
        file_entry("probe.npz", 65536),
        file_entry("report.json", 0),
    ),
)
PIPELINE = Pipeline(
    states={"recent.past": "recent.window"},
    inputs={
        "image": PipelineInput(dtype="uint8", shape=(-1, -1, -1, 3)),
        "recent.past": PipelineInput(dtype="float32", shape=(1, 5, 4)),
    },
    nodes=(
        ModelNode(
            name="detect",
            manifest_sha256=digest("detect"),
            inputs={"image": "input/image"},
            variant="int8",
            deadline_ms=200.0,
        ),
        CropsNode(name="cut", image="input/image", boxes="detect/found_boxes", height=64, width=64, margin=0.1),
        ModelNode(name="one", manifest_sha256=digest("one"), inputs={"x": "cut/crops"}, rows="detect/found_count"),
        ModelNode(name="other", manifest_sha256=digest("other"), inputs={"x": "cut/crops"}, rows="detect/found_count"),
        MeanNode(name="both", of=("one/p", "other/p"), least=1),
        VoteNode(name="vote", of=("one/p", "other/p")),
        WindowNode(name="recent", of="both/mean", past="input/recent.past"),
    ),
    outputs={
        "boxes": "detect/found_boxes",
        "classes": "both/mean",
        "votes": "vote/votes",
        "recent.window": "recent/window",
    },
)
CHANNEL = Channel(
    channel="wrist",
    model="har",
    serial=7,
    stable=ChannelRelease(version="1.1.0", manifest_sha256=digest("1.1.0")),
    candidate=ChannelRelease(version="1.2.0", manifest_sha256=digest("1.2.0")),
    rollout="har-2026-11",
    percentage=12.5,
    selectors=(Selector(fact="board", values=("pi-4", "pi-5")), Selector(fact="tag.site", values=("berlin",))),
    mode="shadow",
    gates=Gates(soak_s=900.0, max_crashes=1, min_requests=50),
    retry=Retry(serial=7, devices=("dev-1",), reasons=("crash-loop",)),
    window=MaintenanceWindow(start="22:30", end="04:00"),
    deadline="2026-12-01T00:00:00Z",
    blocked=(digest("1.0.9"),),
    retries=(RetryRule(reason="crash-loop", attempts=2, wait_s=7200.0),),
)
FAMILY = Family(model="har", serial=3, minimum_version="1.1.0", revoked=(digest("1.0.0"),))
DELTA = DeltaEntry(
    target="cd" * 32, base="ef" * 32, codec="zstd", size=70_000, sha256="12" * 32, chunks=("34" * 32, "56" * 32)
)
DELTAS = Deltas(model="har", version="1.3.0", manifest_sha256="ab" * 32, deltas=(DELTA,))
JOB = Job(
    job="bench-42",
    kind="benchmark",
    model="har",
    release=ChannelRelease(version="1.2.0", manifest_sha256=digest("1.2.0")),
    selectors=(Selector(fact="architecture", values=("aarch64",)),),
    parameters={"runs": 200, "pace_hz": 12.5, "warm": True, "scenario": "single"},
    limit_s=300.0,
    limit_mb=128.0,
    deadline="2026-12-01T00:00:00Z",
)
PRESENCE = Presence(device="dev-1", boot_id="3f2a", online=True, time="2026-11-22T06:00:00Z")
INSTALLED = Installed(version="1.1.0", manifest_sha256=digest("1.1.0"))
REPORTED = ReportedState(
    device="dev-1",
    boot_id="3f2a",
    sequence=12,
    time="2026-11-22T06:00:00.250Z",
    agent_version="0.1.0",
    board="pi-4",
    architecture="aarch64",
    tags={"site": "berlin"},
    level="CONSERVE",
    slots=(
        SlotState(
            slot="wrist",
            channel="wrist",
            model="har",
            state="shadow",
            serving=INSTALLED,
            progress=0.5,
            shadow=ShadowSummary(version="1.2.0", compared=200, agreement=0.985, low=0.957, high=0.995, slower=1.1),
        ),
    ),
    trusted={"timestamp": 9, "snapshot": 4},
    audit_head=digest("audit"),
    spooled=3,
)
WINDOW = TelemetryWindow(
    device="dev-1",
    boot_id="3f2a",
    sequence=13,
    start="2026-11-22T06:00:00Z",
    end="2026-11-22T06:01:00Z",
    slot="wrist",
    model="har",
    version="1.1.0",
    variant="int8",
    counters={"requests": 120, "errors": 0},
    served_by={"active:1.1.0/int8": 120},
    latency_log2_us=(0, 0, 0, 0, 0, 0, 0, 100, 20),
    resources={"cpu_percent": 12.5},
    histograms={"window": (1, 2, 3)},
    drift={"window": 0.02},
    shadow=ShadowCounts(
        version="1.2.0",
        manifest_sha256=digest("candidate"),
        compared=20,
        classified=20,
        agreed=19,
        confusion={"walk>run": 1},
        confidence_shift=(0,) * 9 + (20,) + (0,) * 10,
        confidence_shift_sum=-1.0,
        served_us=4000,
        candidate_us=4400,
        latency_log2_us=(0, 0, 0, 0, 0, 0, 0, 20),
    ),
)
EVENT = Event(
    device="dev-1",
    boot_id="3f2a",
    sequence=14,
    time="2026-11-22T06:01:30Z",
    event="rolled_back",
    severity="warning",
    slot="wrist",
    text="worker died during soak",
    detail={"crashes": 2, "signal": 9},
)
TOMBSTONE = Tombstone(device="dev-1", boot_id="3f2a", sequence=15, time="2026-11-22T06:02:00Z", first=4, count=3)
PROFILE = DeviceProfile(
    name="pi-4",
    board=Board(description="example", architecture="aarch64", cores=4, memory_mb=4096.0, source="product brief"),
    engines=("onnxruntime", "litert"),
    model=ModelBudget(latency_ms=50.0, reduce_range=True),
    governor=GovernorThresholds(temperature_c=Threshold(conserve=75.0, critical=80.0, hysteresis=5.0)),
)
HINT = Hint(timestamp_version=41)
REQUEST = Request(id=5, reply="ew/v1/default/d/dev-1/rsp/a1", kind="blob", name=digest("blob"), offset=65536)
RESPONSE = Response(id=5, status="ok", offset=65536, total=70000, body=b"\x00\x01\xff")

CLAIM = Claim(
    claim="claim-0123456789abcdef",
    tenant="default",
    device="dev-1",
    host="broker.example.org",
    port=8884,
    expires="2026-11-29T06:00:00Z",
    ca="-----BEGIN CERTIFICATE-----\n",
    issuer="-----BEGIN CERTIFICATE-----\n",
    certificate="-----BEGIN CERTIFICATE-----\n",
    key="PEM of a private key\n",
)
CERTIFICATE_REQUEST = CertificateRequest(nonce="0" * 32, certificate=b"\x30", csr=b"\x30", signature=b"\x30")
CERTIFICATE_ANSWER = CertificateAnswer(nonce="0" * 32, refused="used")
ROSTER = Roster(
    channel="wrist", shard=1, groups={"berlin": RosterGroup(turns=3, places=("0123456789ab", "ab0123456789"))}
)

EXAMPLES: dict[str, msgspec.Struct] = {
    "manifest": MANIFEST,
    "pipeline": PIPELINE,
    "channel": CHANNEL,
    "family": FAMILY,
    "job": JOB,
    "deltas": DELTAS,
    "roster": ROSTER,
    "presence": PRESENCE,
    "reported-state": REPORTED,
    "telemetry-window": WINDOW,
    "event": EVENT,
    "tombstone": TOMBSTONE,
    "device-profile": PROFILE,
    "hint": HINT,
    "request": REQUEST,
    "response": RESPONSE,
    "claim": CLAIM,
    "certificate-request": CERTIFICATE_REQUEST,
    "certificate-answer": CERTIFICATE_ANSWER,
}


def any_value(kind: type) -> st.SearchStrategy[Any]:
    """Return a strategy for any value a contract's type allows, constraints included."""
    return _strategy(msgspec.inspect.type_info(kind))


def _strategy(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    if isinstance(info, msgspec.inspect.Metadata):
        return _strategy(info.type)
    return _STRATEGIES[type(info)](info)


def _struct(info: Any) -> st.SearchStrategy[Any]:
    return st.builds(info.cls, **{field.name: _strategy(field.type) for field in info.fields})


def _text(info: Any) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        return st.from_regex(info.pattern, fullmatch=True)
    characters = st.characters(exclude_categories=["Cs"])
    return st.text(characters, min_size=info.min_length or 0, max_size=min(info.max_length or 40, 40))


def _integer(info: Any) -> st.SearchStrategy[int]:
    low = info.ge if info.ge is not None else -(2**53)
    return st.integers(min_value=low, max_value=info.le if info.le is not None else 2**53)


def _number(info: Any) -> st.SearchStrategy[float]:
    low, high = info.ge if info.gt is None else info.gt, info.le if info.lt is None else info.lt
    return st.floats(
        min_value=low,
        max_value=high,
        exclude_min=info.gt is not None,
        exclude_max=info.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def _sequence(info: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    items = st.lists(_strategy(info.item_type), min_size=info.min_length or 0, max_size=(info.min_length or 0) + 2)
    return items.map(tuple)


def _mapping(info: Any) -> st.SearchStrategy[dict[Any, Any]]:
    keys, values, least = _strategy(info.key_type), _strategy(info.value_type), info.min_length or 0
    return st.dictionaries(keys, values, min_size=least, max_size=least + 3)


_STRATEGIES: dict[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    msgspec.inspect.StructType: _struct,
    msgspec.inspect.StrType: _text,
    msgspec.inspect.IntType: _integer,
    msgspec.inspect.FloatType: _number,
    msgspec.inspect.BoolType: lambda _: st.booleans(),
    msgspec.inspect.NoneType: lambda _: st.none(),
    msgspec.inspect.BytesType: lambda _: st.binary(max_size=64),
    msgspec.inspect.LiteralType: lambda info: st.sampled_from(info.values),
    msgspec.inspect.UnionType: lambda info: st.one_of(*(_strategy(kind) for kind in info.types)),
    msgspec.inspect.VarTupleType: _sequence,
    msgspec.inspect.TupleType: lambda info: st.tuples(*(_strategy(kind) for kind in info.item_types)),
    msgspec.inspect.DictType: _mapping,
}
