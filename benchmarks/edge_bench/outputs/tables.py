"""The report as CSV, one row a model, and reports and gates as JUnit, which build servers show."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET

from edge_bench.decisions.gate import BenchGate, sentence
from edge_bench.report import BenchReport, SubjectReport

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SHARES = {0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p99_9"}


def as_csv(report: BenchReport) -> str:
    """Return the report as CSV (RFC 4180). What was not measured is empty."""
    rows = [_flat(report, one) for one in report.subjects]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(report: BenchReport, one: SubjectReport) -> dict[str, object]:
    row: dict[str, object] = {
        "model": one.name, "measured_at": report.measured_at, "cpu": report.environment.cpu, "sha256": one.sha256,
        "bytes": one.size, "engine": one.engine, "error": one.error or "", "load_ms": one.load_ms,
        "first_ms": one.first_ms,
    }  # fmt: skip
    if one.run is not None:
        run = one.run
        row |= {"scenario": run.scenario, "valid": run.judgement.valid, "stable": run.stable, "queries": run.queries}
        for found in run.percentiles:
            name = SHARES[found.share]
            row |= {
                f"{name}_ms": found.ms,
                f"{name}_low_ms": found.interval.low,
                f"{name}_high_ms": found.interval.high,
            }
        row |= {"frames_per_s": run.frames_per_s, "cpu_ms": run.cpu_ms, "late": run.late}
        row |= {"peak_mb": None, "average_mb": None} if run.memory is None else {
            "peak_mb": run.memory.peak_mb, "average_mb": run.memory.average_mb,
        }  # fmt: skip
        row |= {"mj_per_inference": run.energy.mj_per_inference, "causes": "; ".join(run.causes)}
        row["sustained_ratio"] = None if run.sustained is None else run.sustained.ratio
    if one.quality is not None:
        quality = one.quality
        row |= {"metric": quality.metric, "score": quality.score}
        row |= (
            {} if quality.interval is None else {"score_low": quality.interval.low, "score_high": quality.interval.high}
        )
        row |= {"worst_slice": quality.worst_slice, "worst_score": quality.worst_score, "covered": quality.covered}
    return {name: "" if value is None else value for name, value in row.items()}


def report_as_junit(report: BenchReport) -> str:
    """Return the report as JUnit XML: what failed or is INVALID fails, what is unstable says so."""
    suite = ET.Element("testsuite", name=f"edgewright bench {report.subject}", timestamp=report.measured_at.rstrip("Z"))
    failures = 0
    for one in report.subjects:
        case = ET.SubElement(suite, "testcase", classname=report.subject, name=one.name)
        if one.run is not None:
            case.set("time", f"{one.run.seconds:.3f}")
        why = [one.error] if one.error is not None else []
        why += list(one.run.judgement.reasons) if one.run is not None else []
        if why:
            failures += 1
            ET.SubElement(case, "failure", message=why[0]).text = "\n".join(why)
        if one.run is not None and not one.run.stable:
            ET.SubElement(case, "system-out").text = "unstable: " + "; ".join(one.run.causes)
    return _document(suite, len(report.subjects), failures, 0)


def gate_as_junit(found: BenchGate, name: str) -> str:
    """Return a gate as JUnit XML: a test case for each check; an unsure one is skipped."""
    suite = ET.Element("testsuite", name=f"edgewright bench gate {name}")
    for one in found.checks:
        case = ET.SubElement(suite, "testcase", classname=one.subject, name=one.what)
        if one.verdict == "fail":
            ET.SubElement(case, "failure", message=sentence(one)).text = sentence(one)
        elif one.verdict == "unsure":
            ET.SubElement(case, "skipped", message=sentence(one))
    count = [one.verdict for one in found.checks]
    return _document(suite, len(count), count.count("fail"), count.count("unsure"))


def _document(suite: ET.Element, tests: int, failures: int, skipped: int) -> str:
    for name, count in (("tests", tests), ("failures", failures), ("errors", 0), ("skipped", skipped)):
        suite.set(name, str(count))
    for element in suite.iter():
        for name, value in element.attrib.items():
            element.set(name, _printable(value))
        element.text = None if element.text is None else _printable(element.text)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Return a text without what XML 1.0 has no spelling for."""
    return _NO_XML.sub("?", text)
