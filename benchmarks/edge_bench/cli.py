"""`edgewright bench`: measure a model or a bundle's variants, compare two, decide by it, see how it went over time.
The commands are in `edge_bench.commands`."""

from __future__ import annotations

import click

from edge_bench.commands.compare import compare
from edge_bench.commands.gate import gate
from edge_bench.commands.history import history
from edge_bench.commands.measure import measure


class _MeasuringGroup(click.Group):
    """A group in which what is no command is a model or bundle to measure."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["measure", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_MeasuringGroup, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure models, compare two, hold one to its limits.

    \b
    Examples:
      edgewright bench model.onnx
      edgewright bench compare float.onnx int8.onnx
      edgewright bench gate model.onnx --against main
    """


for command in (measure, compare, gate, history):
    bench.add_command(command)
