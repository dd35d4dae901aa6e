"""What `test_serve_and_score.py` and `test_serve_and_score_processes.py` share."""

from click.testing import CliRunner

from edge_agent.cli.score import score


def run_score(*words):
    return CliRunner().invoke(score, [str(word) for word in words], catch_exceptions=False)
