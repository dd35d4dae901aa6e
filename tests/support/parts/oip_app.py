"""What `test_oip_app.py` and `test_oip_app_processes.py` share."""

import pytest
from support.makers import bundles
from support.sites.worker_host import HostedWorker, ladder_of, listening_socket, url_of


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A worker over a good bundle; yields its URL and the bundle."""
    bundle = bundles.make_bundle(tmp_path_factory.mktemp("oip") / "b")
    with listening_socket() as listening:
        worker = HostedWorker(listening, ladder_of(bundle))
        worker.ready()
        yield url_of(listening), bundle
        worker.close()
