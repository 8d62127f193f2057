"""What the tests of lost power share."""

from pathlib import Path

import pytest

from holdfast_server.testing.faults.power_loss import NoCompiler, build_shim


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_shim(tmp_path_factory.mktemp("shim"))
    except NoCompiler as error:
        pytest.skip(str(error))
