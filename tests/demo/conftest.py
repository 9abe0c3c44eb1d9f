import numpy as np
import pytest

from fast3d_core.demo.detection import detect
from fast3d_core.demo.rooms import draw_size, make_room


@pytest.fixture(scope="session")
def places():
    """60 rooms with their detections."""
    rng = np.random.default_rng(7)
    rooms = [make_room(rng, draw_size(rng, full=index % 2 == 0)) for index in range(60)]
    return [(room, detect(room, rng)) for room in rooms]
