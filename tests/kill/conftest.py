import os
import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from tests.download.conftest import Handler, Server
from tests.kill import world
from tests.kill.nursery import Nursery

EVERY = os.environ.get("FAST3D_KILLS") == "all"
"""`make kill`: each command at each of its operations, not at some."""


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    one = Nursery(tmp_path_factory.mktemp("nursery"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    state = Server()
    handler = type("Served", (Handler,), {"server_state": state})
    world.serve(state)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield state
        server.shutdown()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the small demo; made once for all processes that run tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    folder = shared / "small-demo-weights"
    with FileLock(shared / "small-demo-weights.lock"):
        if not folder.exists():
            world.small_weights(made := folder.with_name("small-demo-weights-made"))
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def written(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small demo."""
    from fast3d_core.demo.release import write_demo
    from tests.demo.test_release import TINY

    folder = tmp_path_factory.mktemp("written") / "demo"
    write_demo(folder, weights, TINY)
    return folder


@pytest.fixture
def case(nursery: Nursery) -> Iterator[Path]:
    """The work folder, empty."""
    shutil.rmtree(nursery.work, ignore_errors=True)
    nursery.work.mkdir()
    yield nursery.work
    shutil.rmtree(nursery.work, ignore_errors=True)
