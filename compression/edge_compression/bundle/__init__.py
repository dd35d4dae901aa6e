"""Writing the bundle: variants, samples, statistics, manifest. Read `writer.py` first."""
