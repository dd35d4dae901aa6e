"""What `test_batcher.py` and `test_batcher_processes.py` share."""

from support.makers import bundles

ROWS = [row[None] for row in bundles.samples(20, seed=5)[0]]
