"""The demonstration step by step. Each step says what happens, does it through the documented commands, and checks it.

How processes are started is in `stage`, how the broken releases are made in `releases`, what is printed in `account`.
"""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edge_agent.inference.samples import read_arrays
from edge_contracts.channel import manifest_target
from edgewright.demo import releases
from edgewright.demo.account import Account
from edgewright.demo.broker import EmbeddedBroker
from edgewright.demo.client import Client, Load
from edgewright.demo.stage import AGENT, DemoError, Stage, run, run_json, wait_for

MODEL = "watch_har"
CHANNEL = "wrist"
DEVICE = "demo-watch"
SOAK_S = 5.0
MAX_DROP_POINTS = 1.0
SMALLEST_ACCURACY = 0.7
"""The original scores about 0.81 on unseen subjects; 100 held-out samples put 0.7 below three standard errors."""


@dataclass(kw_only=True)
class Story:
    """The state the steps share: where things are and what runs."""

    account: Account
    stage: Stage
    broker: EmbeddedBroker
    data: Path

    def __post_init__(self) -> None:
        self.fleet = self.stage.folder / "fleet"
        self.bundle = self.stage.folder / "bundle-1.0.0"
        self.state = self.stage.folder / "device"
        held_out = read_arrays(self.data / "watch_har_heldout.npz", what="held-out samples")
        self.samples, self.labels = held_out["x"], held_out["y"]

    @property
    def broker_options(self) -> tuple[str, ...]:
        return ("--broker", f"127.0.0.1:{self.broker.port}", "--protocol", self.broker.protocol)

    def status(self) -> dict[str, Any]:
        """Return what `edgewright agent status --json` says."""
        found: dict[str, Any] = run_json("agent", "status", "--state", str(self.state))
        return found

    def slot(self) -> dict[str, Any]:
        """Return the status of the only slot."""
        slot: dict[str, Any] = self.status()["slots"][0]
        return slot

    def client(self) -> Client:
        """Return a client of the slot's present address."""
        return Client(self.slot()["http"], MODEL, "x")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of that name that have reached the fleet's store, oldest first."""
        found = run_json("fleet", "events", str(self.fleet))["events"]
        return [event for event in found if event["event"] == name]

    def release(self, bundle: Path) -> None:
        """Sign and publish a bundle."""
        run("fleet", "release", str(self.fleet), str(bundle))

    def roll_out(self, version: str) -> None:
        """Offer a release to every device of the channel."""
        words = ("--model", MODEL, "--version", version, "--channel", CHANNEL, "--soak", str(SOAK_S))
        run("fleet", "rollout", "start", str(self.fleet), *words)

    def end_rollout(self, verb: str) -> None:
        """`finish` the running rollout (its release becomes the stable one) or `abort` it."""
        run("fleet", "rollout", verb, str(self.fleet), "--channel", CHANNEL)

    def wait_for_slot(
        self, what: str, test: Callable[[dict[str, Any]], bool], timeout_s: float = 45.0
    ) -> dict[str, Any]:
        """Wait until the slot's status passes `test` and return it."""

        def probe() -> dict[str, Any] | None:
            slot = self.slot()
            return slot if test(slot) else None

        return wait_for(what, probe, timeout_s=timeout_s)

    def serving(self) -> str | None:
        """Return the version that answers now, as the answer itself says it."""
        try:
            return self.client().infer(self.samples[:1]).served_by
        except (OSError, RuntimeError):
            return None


def compress(story: Story) -> None:
    """A trained model, its data and a device profile become a bundle of measured variants."""
    account = story.account
    account.step("1. Compress", "A trained activity-recognition network becomes a ladder of measured variants.")
    task = str(story.data / "watch_har.toml")
    limits = ("--profile", "x86-gateway", "--max-drop", str(MAX_DROP_POINTS), "--version", "1.0.0")
    short = ("--budget", "60s", "--variations", "0")  # the recipes as they are written are enough for a demo
    run("compress", task, *limits, *short, "--out", str(story.bundle))
    manifest = json.loads((story.bundle / "manifest.json").read_text())
    original = (story.data / "watch_har.onnx").stat().st_size
    for variant in manifest["variants"]:
        size = f"{variant['size'] / original:.0%} of the bytes"
        account.say(f"{variant['id']:<28} {size:<20} score {variant['score']:.3f}  {variant['latency_ms']:.3f} ms")
    smallest = min(manifest["variants"], key=lambda variant: variant["size"])
    good = smallest["size"] < 0.5 * original and smallest["drop"] <= MAX_DROP_POINTS
    detail = (
        f"{len(manifest['variants'])} variants; smallest {smallest['id']}: {smallest['size']} of {original} bytes, "
    )
    account.check("compressed", good, detail + f"{smallest['drop']:+.2f} points lost")


def make_keys(story: Story) -> None:
    """Keys for every role, then the first signed release."""
    story.account.step("2. Keys and a signed release", "Five roles, five keys; the broker will hold none of them.")
    run("fleet", "init", str(story.fleet), "--family", MODEL)
    keys = sorted((story.fleet / "keys").glob("*.pem"))
    private = all(stat.S_IMODE(key.stat().st_mode) & 0o077 == 0 for key in [*keys, story.fleet / "keys"])
    names = ", ".join(key.stem for key in keys)
    story.account.check("keys-made", private and len(keys) >= 5, f"{names}; readable by their owner only")
    story.release(story.bundle)
    target = story.fleet / "repository" / "targets" / Path(manifest_target(MODEL, "1.0.0")).parent
    story.account.check("release-signed", any(target.iterdir()), f"{MODEL} 1.0.0 published as a signed target")


def update_over_mqtt(story: Story) -> None:
    """The agent pulls, verifies, tries and activates the release over the broker."""
    account, stage = story.account, story.stage
    account.step(
        "3. An agent pulls the update over MQTT",
        "A depot answers from the repository; the agent trusts only signatures.",
    )
    stage.start("depot", "fleet", "depot", str(story.fleet), *story.broker_options, ready="depot ready")
    stage.start("controller", "fleet", "controller", str(story.fleet), *story.broker_options, ready="controller ready")
    config = stage.folder / "agent.toml"
    settings = {"device": DEVICE, "state": story.state, "port": story.broker.port, "root": story.fleet / "root.json"}
    config.write_text(AGENT.format(protocol=story.broker.protocol, **settings))
    stage.start("agent", "agent", "run", "--config", str(config), ready=f"agent {DEVICE} started")
    story.roll_out("1.0.0")
    slot = story.wait_for_slot("1.0.0 committed", lambda slot: slot["state"] == "committed")
    account.check("updated-over-mqtt", slot["serving"]["version"] == "1.0.0", f"{slot['served_by']} is committed")
    story.end_rollout("finish")


def answer(story: Story) -> None:
    """Held-out samples over HTTP."""
    story.account.step(
        "4. Inference", "100 held-out windows of people the model never saw, over the Open Inference Protocol."
    )
    accuracy, served_by = story.client().accuracy(story.samples, story.labels)
    story.account.check(
        "accurate-answers", accuracy >= SMALLEST_ACCURACY, f"accuracy {accuracy:.2f}, served by {served_by}"
    )


def refuse_bad_release(story: Story) -> None:
    """Validly signed, wrong answers: the trial on the device refuses it."""
    account = story.account
    account.step(
        "5. A signed but bad release", "Its labels are mixed up. The signature is valid; the answers are wrong."
    )
    bad = story.stage.folder / "bundle-1.1.0"
    releases.derive(story.bundle, bad, "1.1.0", releases.mix_up_labels)
    story.release(bad)
    story.roll_out("1.1.0")
    slot = story.wait_for_slot("1.1.0 rejected", lambda slot: slot["state"] == "rejected")
    # Its answers are far from the original's, and they are wrong: whichever the trial looks at first.
    refused = slot["reason"] in ("trial-golden", "trial-quality")
    account.check("bad-release-refused", refused, f"rejected: {slot['reason']}")
    story.end_rollout("abort")
    accuracy, served_by = story.client().accuracy(story.samples[:30], story.labels[:30])
    account.check("first-keeps-serving", ":1.0.0/" in served_by, f"{served_by}, accuracy {accuracy:.2f}")


def survive_explosion(story: Story) -> None:
    """Passes trial, dies in soak on a sensor glitch, is rolled back."""
    account = story.account
    account.step(
        "6. A release that dies in soak",
        "A sensor glitch makes it allocate 12 GB. Three clients send requests all the time.",
    )
    exploding = story.stage.folder / "bundle-1.2.0"
    releases.derive(story.bundle, exploding, "1.2.0", releases.explode_on_glitch)
    story.release(exploding)
    story.roll_out("1.2.0")
    # The slot is active before the new worker has warmed up; until then 1.0.0 answers, which no glitch harms.
    story.wait_for_slot(
        "1.2.0 soaks", lambda slot: slot["state"] == "active" and ":1.2.0/" in (slot["served_by"] or "")
    )
    account.say("1.2.0 passed its trial and serves; now the glitch arrives")
    client = story.client()
    glitch = story.samples[:1].copy()
    glitch[0, 0, 64] = releases.GLITCH
    with Load(client, story.samples) as load:
        wait_for("answers under load", lambda: load.answered > 20)
        lost_here = 0
        try:
            client.infer(glitch)
        except (OSError, RuntimeError):
            lost_here = 1
        slot = story.wait_for_slot("rolled back", lambda slot: slot["state"] == "rolled_back")
        before = load.answered
        wait_for("answers after the rollback", lambda: load.answered > before + 20)
    story.end_rollout("abort")
    serving = story.serving() or ""
    account.check("rolled-back", ":1.0.0/" in serving, f"{slot['reason']}; now {serving}")
    died = wait_for("the worker's death is reported", lambda: story.events("worker-died"))[-1]["detail"]
    lost = lost_here + load.failed
    counted = f"the device counted {died['lost']} on {died['connections']} open connections"
    detail = f"{lost} of {load.answered + lost} requests lost by {load.threads + 1} clients; {counted}"
    account.check("lost-requests-counted", died["lost"] <= lost <= died["connections"] <= load.threads + 1, detail)


def survive_broker_loss(story: Story) -> None:
    """The broker is killed; inference goes on; the outbox drains without a gap."""
    account = story.account
    account.step("7. The broker is killed", "Inference goes on; telemetry waits in the device's outbox.")
    story.broker.kill()
    accuracy, served_by = story.client().accuracy(story.samples[:50], story.labels[:50])
    account.check("serves-without-broker", accuracy >= SMALLEST_ACCURACY - 0.1, f"accuracy {accuracy:.2f}, {served_by}")
    spooled = wait_for("telemetry waits", lambda: n if (n := story.status()["spooled"]) >= 3 else None)
    account.say(f"{spooled} messages wait on the device; the broker comes back")
    story.broker.start()
    wait_for("the outbox drains", lambda: story.status()["spooled"] <= 1, timeout_s=60)

    def drained() -> dict[str, Any] | None:
        device: dict[str, Any] = run_json("fleet", "devices", str(story.fleet))["devices"][0]
        return device if device["online"] else None

    device = wait_for("the device is online again", drained)
    account.check(
        "outbox-drained", device["gap_count"] == 0, f"{spooled} waiting messages arrived; {device['gap_count']} gaps"
    )


def refuse_tampering(story: Story, old_repository: Path) -> None:
    """A hostile depot offers a tampered manifest, then an old repository."""
    account, stage = story.account, story.stage
    account.step(
        "8. A hostile depot", "It answers with a tampered manifest, then with an old, validly signed repository."
    )
    good = stage.folder / "bundle-1.3.0"
    releases.derive(story.bundle, good, "1.3.0", releases.unchanged)
    stage.stop("depot")
    story.release(good)
    story.roll_out("1.3.0")
    tampered = stage.folder / "tampered"
    shutil.copytree(story.fleet / "repository", tampered)
    for manifest in (tampered / "targets" / manifest_target(MODEL, "1.3.0")).parent.iterdir():
        manifest.write_bytes(manifest.read_bytes().replace(b'"score":0.', b'"score":1.'))
    _refused_from(story, "tampered-manifest-refused", tampered, {"hash-mismatch", "too-large"})
    _refused_from(story, "replay-refused", old_repository, {"rollback"})
    serving = story.serving() or ""
    account.check("still-serving", ":1.0.0/" in serving, f"after both attacks: {serving}")


def _refused_from(story: Story, name: str, repository: Path, reasons: set[str]) -> None:
    since = time.time()
    story.stage.start("attacker", "fleet", "depot", str(repository), *story.broker_options, ready="depot ready")

    def refusal() -> dict[str, Any] | None:
        found: list[dict[str, Any]] = story.status()["refusals"]
        return next((entry for entry in found if entry["reason"] in reasons and entry["time"] > since), None)

    try:
        found = wait_for(f"a refusal for one of {sorted(reasons)}", refusal)
        story.account.check(name, True, f"{found['reason']}: {found['text']}")
    finally:
        story.stage.stop("attacker")


def tell(account: Account, folder: Path) -> None:
    """Run every step. Raises DemoError when one cannot go on."""
    data = Path(str(resources.files("edgewright.demo") / "data"))
    broker = EmbeddedBroker()
    account.step("0. Broker", "An embedded MQTT broker on a free loopback port.")
    with broker, Stage(folder) as stage:
        account.check("broker-started", True, f"127.0.0.1:{broker.port}")
        story = Story(account=account, stage=stage, broker=broker, data=data)
        try:
            _tell(story)
        except DemoError:
            for name in ("agent", "depot", "controller"):
                account.say(f"--- last lines of {name} ---\n{stage.log_tail(name)}")
            raise


def _tell(story: Story) -> None:
    compress(story)
    make_keys(story)
    update_over_mqtt(story)
    old_repository = story.stage.folder / "old-repository"
    shutil.copytree(story.fleet / "repository", old_repository)
    answer(story)
    refuse_bad_release(story)
    survive_explosion(story)
    survive_broker_loss(story)
    refuse_tampering(story, old_repository)
