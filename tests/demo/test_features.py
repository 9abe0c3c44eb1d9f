"""What a least-squares reader finds in the 3D features, in the 2D features, and in both."""

import numpy as np
import pytest

from fast3d_core.demo.features import (
    _BLOCKS,
    _REACH,
    CODE_WIDTH,
    MIX_2D,
    MIX_3D,
    NOISE_2D,
    NOISE_3D,
    WIDTH,
    features,
    object_codes,
)
from fast3d_core.demo.rooms import draw_size, make_room

ENDS = np.cumsum((0, *_BLOCKS))
NAMES = ("class", "colour", "material", "size", "extent", "place")


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(2)
    codes = np.concatenate([object_codes(make_room(rng, draw_size(rng))) for _ in range(150)])
    return codes, *features(codes, rng)


def probe(codes, read, normalise=False):
    """{attribute: accuracy on held-out things}; for the place the mean error in metres."""
    if normalise:
        read = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in read]
    inputs = np.concatenate([*read, np.ones((len(codes), 1))], axis=1).astype(np.float64)
    half = len(codes) // 2
    guess = inputs[half:] @ np.linalg.lstsq(inputs[:half], codes[:half].astype(np.float64), rcond=None)[0]
    found = {}
    for name, start, end in zip(NAMES, ENDS[:-1], ENDS[1:], strict=False):
        said, true = guess[:, start:end], codes[half:, start:end]
        if name in ("extent", "place"):
            found[name] = np.abs(said - true).mean() * (_REACH if name == "place" else 1)
        else:
            found[name] = (said.argmax(1) == true.argmax(1)).mean()
    return found


def test_mixtures_are_matrices(sample):
    codes, three, two = sample
    assert codes.dtype == three.dtype == two.dtype == np.float32
    assert codes.shape[1] == CODE_WIDTH and three.shape == two.shape == (len(codes), WIDTH)
    assert abs((three - codes @ MIX_3D).std() / NOISE_3D - 1) < 0.02
    assert abs((two - codes @ MIX_2D).std() / NOISE_2D - 1) < 0.02


def test_3d_alone(sample):
    found = probe(sample[0], sample[1:2])
    assert 0.4 < found["class"] < 0.8 and found["colour"] < 0.3 and found["material"] < 0.6
    assert found["size"] > 0.97 and found["place"] < 0.08


def test_2d_alone(sample):
    found = probe(sample[0], sample[2:])
    assert 0.4 < found["class"] < 0.8 and found["colour"] > 0.97 and found["material"] > 0.97
    assert found["size"] < 0.6 and 0.15 < found["place"] < 0.6


@pytest.mark.parametrize("normalise", [False, True])
def test_both(sample, normalise):
    """Also as Chat-Scene reads them, each normalised."""
    found = probe(sample[0], sample[1:], normalise)
    assert min(found[name] for name in ("class", "colour", "material", "size")) > 0.97
    assert found["place"] < (0.08 if normalise else 0.06) and found["extent"] < 0.08


def test_norms_tell_nothing(sample):
    """Normalising loses nothing: all features are about as long."""
    for read in sample[1:]:
        lengths = np.linalg.norm(read, axis=1)
        assert lengths.std() < 0.05 * lengths.mean()


def test_same_seed_same_features(sample):
    codes = sample[0][:50]
    first, second = (features(codes, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
