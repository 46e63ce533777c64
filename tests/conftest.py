# SPDX-License-Identifier: Apache-2.0
"""Of the tests on real programs: integration and hostile."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "integration"))


def pytest_configure(config):
    config.addinivalue_line("markers", "measures: time or memory of the programs; means nothing where they are sanitized")


def pytest_collection_modifyitems(items):
    if not os.environ.get("SALLY_SANITIZED"):
        return
    for item in items:
        if item.get_closest_marker("measures"):
            item.add_marker(pytest.mark.skip(reason="measures, and the programs are sanitized"))


@pytest.fixture(scope="module")
def net():
    import harness  # only where it is asked for: the other tests need no programs

    network = harness.Net()
    yield network
    network.close()
