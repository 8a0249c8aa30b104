import numpy as np
import torch
from scipy import stats

from pipeline.data.order import mix, sample_hashes
from pipeline.diffusion import draws


def test_keys_are_the_hashes_of_the_order() -> None:
    ids = torch.tensor([0, 1, 7, 2**40, -5 + 2**62])
    found = draws.keys(3, 11, 5, ids).numpy().view(np.uint64)
    assert (found == sample_hashes(3, 11, 5, ids.numpy().astype(np.uint64))).all()


def test_streams_are_those_of_splitmix64() -> None:
    keys = draws.keys(1, torch.arange(4))
    golden = np.uint64(0x9E3779B97F4A7C15)
    places = np.arange(1, 7, dtype=np.uint64) * golden
    bits = mix(keys.numpy().view(np.uint64)[:, None] + places)
    expected = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    assert (draws.uniform(keys, 6).numpy() == expected).all()


def test_normal_numbers_are_normal_and_independent() -> None:
    found = draws.normal(draws.keys(draws.START, 0, torch.arange(50)), (3, 20, 20))
    assert found.shape == (50, 3, 20, 20) and found.dtype == torch.float32
    flat = found.flatten().double().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    between = np.corrcoef(found.flatten(1).numpy())
    assert np.abs(between - np.eye(50)).max() < 0.15
    halves = found.flatten(1).split(600, dim=1)
    assert abs(np.corrcoef(halves[0].flatten(), halves[1].flatten())[0, 1]) < 0.03


def test_a_sample_has_its_numbers_in_any_batch() -> None:
    ids = torch.arange(30)
    whole = draws.normal(draws.keys(draws.START, 5, ids, 7), (1, 5, 3))
    for part in (ids[:1], ids[3:20], ids.flip(0)):
        assert torch.equal(
            draws.normal(draws.keys(draws.START, 5, part, 7), (1, 5, 3)), whole[part]
        )
    other = draws.normal(draws.keys(draws.TRAINING_NOISE, 5, ids, 7), (1, 5, 3))
    assert not (other == whole).any()
