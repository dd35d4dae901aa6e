"""The readable account of the demonstration: steps, checks, the closing table, and the report for machines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise and whether it held."""

    name: str
    ok: bool
    detail: str


@dataclass
class Account:
    """Prints as it goes and remembers every check. `ok` only if at least one check was made and all held."""

    console: Console
    checks: list[Check] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def step(self, title: str, explanation: str) -> None:
        """Begin a step: what is about to happen and why it matters."""
        elapsed = time.monotonic() - self._began
        self.console.print(f"\n[bold]{title}[/bold]  [dim]({elapsed:.0f} s)[/dim]")
        self.console.print(f"  [dim]{explanation}[/dim]")

    def say(self, text: str) -> None:
        """Add a line to the current step."""
        self.console.print(f"  {text}", highlight=False)

    def check(self, name: str, ok: bool, detail: str) -> None:
        """Record whether a promise held."""
        self.checks.append(Check(name=name, ok=ok, detail=detail))
        mark = "[green]ok[/green]  " if ok else "[red]FAIL[/red]"
        self.console.print(f"  {mark} {name}: {detail}", highlight=False)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def summary(self) -> None:
        """Print the closing table."""
        table = Table(title=f"Edgewright demo: {len(self.checks)} checks in {self.seconds:.0f} s")
        table.add_column("check")
        table.add_column("result")
        table.add_column("what was seen")
        for check in self.checks:
            table.add_row(check.name, "[green]ok[/green]" if check.ok else "[red]FAIL[/red]", check.detail)
        self.console.print()
        self.console.print(table)

    def write(self, path: Path) -> None:
        """Write the report: `{ok, seconds, checks: [{name, ok, detail}]}`."""
        checks = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in self.checks]
        body = {"ok": self.ok, "seconds": round(self.seconds, 1), "checks": checks}
        path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
