"""How the layers are divided over the ranks."""

import pytest

from pipeline.certify.bounds import dealt
from tests.certify.small import small_network


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_every_layer_has_one_rank_and_the_costly_ones_are_spread(size: int) -> None:
    network = small_network(0)
    shares = [dealt(network)[rank::size] for rank in range(size)]
    assert sorted(n for share in shares for n in share) == list(range(len(network.layers)))
    # Layers alternate between convolution and MinMax: dealing by number would give all to one.
    costly = [sum(bool(network.layers[n].tensors()) for n in share) for share in shares]
    assert max(costly) - min(costly) <= 1
