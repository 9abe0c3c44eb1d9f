import time

import pytest
import torch

from fast3d_core.runtime.stopwatch import Stopwatch


def test_a_stopwatch_s_parts_add_up():
    watch = Stopwatch(torch.device("cpu"))
    time.sleep(0.02)
    watch.mark("first")
    time.sleep(0.04)
    watch.mark("second")
    seconds = watch.seconds()
    assert list(seconds) == ["first", "second", "end_to_end"]
    assert seconds["first"] >= 0.02 and seconds["second"] >= 0.04
    assert seconds["end_to_end"] == pytest.approx(seconds["first"] + seconds["second"])
