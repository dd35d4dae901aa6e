"""What `test_histogram_names.py` and `test_histogram_names_processes.py` share."""

from support.makers import bundles

from edge_agent.histogram_names import parted

X = [row[None] for row in bundles.samples(12, seed=6)[0]]
BASES = {"x/mean", "x/2", "fp32/confidence", "fp32/class"}


def seen_by_tag(histograms):
    """Return how many samples each tag's `x/mean` holds; that of all requests under the empty tag."""
    return {parted(name)[1]: sum(bins) for name, bins in histograms.items() if parted(name)[0] == "x/mean"}
