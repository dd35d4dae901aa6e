"""Which channels of an ONNX graph depend on each other, and removing them: labels flow through the graph as values do.

`labels` has the sets, `flow` the walk over the graph, `rules` what each operator does to labels, `graph` the result and
the removal. Which channels to remove is decided in `edge_compression.pruning`.
"""
