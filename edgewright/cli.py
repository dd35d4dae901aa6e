"""The command `edgewright`: runs it and turns errors into one line, a hint and an exit code.

`agent run`, as systemd starts it, goes straight to the agent: the command line's library would stay in the memory of a
process that runs for years. All other commands, and this one with other words, are in `edgewright.commands`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_contracts.errors import DeviceError, EdgewrightError

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit. Deliberate errors end with one line, a hint and the exit code of whose fault it is;
    with `--json` among the arguments they are one JSON object on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    config = plain_run(words)
    try:
        if config is None:
            sys.exit(_command(words))
        from edge_agent.supervisor.run import run

        run(config)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    except EdgewrightError as error:
        _report(error, as_json="--json" in words)
        sys.exit(error.exit_code)
    except OSError as error:
        _report(DeviceError(error.strerror or str(error), subject=error.filename), as_json="--json" in words)
        sys.exit(DeviceError.exit_code)
    sys.exit(0)


def plain_run(words: Sequence[str]) -> Path | None:
    """Return the configuration file of `agent run --config FILE` with no other words; None for any other command."""
    return Path(words[3]) if len(words) == 4 and list(words[:3]) == ["agent", "run", "--config"] else None


def _command(words: list[str]) -> int:
    import click

    from edgewright.commands import edgewright

    try:
        code = edgewright.main(args=words, prog_name="edgewright", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


def _report(error: EdgewrightError, *, as_json: bool) -> None:
    if as_json:
        text = json.dumps({"error": str(error), "reason": error.reason, "hint": error.hint})
    else:
        text = f"Error: {error}" + (f"\nHint: {error.hint}" if error.hint else "")
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
