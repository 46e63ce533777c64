# SPDX-License-Identifier: Apache-2.0
import pytest
import ziti


@pytest.fixture(scope="session", autouse=True)
def built():
    assert ziti.APP.exists(), f"{ziti.APP} is missing: make interop builds it"


@pytest.fixture
def apps(net, tmp_path):
    with ziti.apps_of(net, tmp_path) as made:
        yield made
