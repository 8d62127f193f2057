"""For all tests: what holds wherever `hypothesis` is used, which files go to one worker of `make test`, a disk that
fails, whose mounts are whose, and what the garbage collector need not look at.

No test may hang on how fast a machine is: an example that takes long, on one with a load of twenty, is no failure.

The files of `tests/e2e` stay with one worker: so one stand-in cluster serves them, where four would start, each with a
Tenant, and be up until the end.  They are many tests, so they begin early, beside unit tests, and take less than the
quarter of the whole time that is one worker's.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from holdfast_server.testing import preloaded
from holdfast_server.testing.faults.failing_disk import FailingDisk, keep_mounts_to_oneself
from holdfast_server.testing.faults.power_loss import NoCompiler

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

ON_ONE_CLUSTER = "tests/e2e/"


class FilesAndOneCluster(LoadFileScheduling):
    """To each worker a file at a time, but for those that are served by one cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return ON_ONE_CLUSTER if nodeid.startswith(ON_ONE_CLUSTER) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesAndOneCluster:
    return FilesAndOneCluster(config, log)


def pytest_configure() -> None:
    keep_mounts_to_oneself()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without garbage collection: six thousand tests and the modules they are in stay, and looking through them while
    they come takes a fifth of the time.  After it, only what tests make is looked at.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def preloaded_pods() -> Iterator[None]:
    with preloaded.pods():
        yield


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FailingDisk:
    """What makes calls below a folder fail or hang, in processes that are started with its environment."""
    try:
        return FailingDisk(tmp_path_factory.mktemp("disk"))
    except NoCompiler as error:
        pytest.skip(str(error))
