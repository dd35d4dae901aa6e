"""The base install, built once for all tests of packaging."""

from __future__ import annotations

import pytest
from support.sites.install_sites import Environment


@pytest.fixture(scope="session")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("base-install"))
