"""The commands below `edgewright bench`, one a module; the group is in `edge_bench.cli`."""
