"""Work on bundles and files that needs no agent: compose, score, replay. Run by commands."""
