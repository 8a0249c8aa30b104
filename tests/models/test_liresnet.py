"""LiResNet against the paper: shapes, parameter counts, what a forward says, what is refused."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.layers.network import ExportedNetwork
from pipeline.models import build_model, list_models
from pipeline.models.network import LipschitzNetwork


def parameters(name: str, classes: int, size: int) -> int:
    with torch.device("meta"):
        model = build_model(name, classes, size)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "size", "millions"),
    [
        ("liresnet_l6w128", 10, 32, 5),
        ("liresnet_l12w512", 10, 32, 49),
        ("liresnet_l12w512", 200, 64, 49),
        ("liresnet_l12w588", 1000, 224, 86),
    ],
)
def test_parameters_as_in_table_1(name: str, classes: int, size: int, millions: int) -> None:
    # The paper rounds or cuts to whole millions: 5.4, 49.3, 49.7 and 85.9.
    assert abs(parameters(name, classes, size) / 1e6 - millions) < 1


@pytest.mark.parametrize(("size", "maps"), [(8, 8), (28, 14), (32, 16), (64, 16), (224, 16)])
def test_stems_make_the_maps_of_the_paper(size: int, maps: int) -> None:
    model = build_model("liresnet", 10, size, in_channels=1, depth=1, width=8, features=16)
    shapes = {layer.name: layer.input_shape for layer in model.export().layers}
    assert shapes["backbone.0.conv"] == (8, maps, maps)
    prediction = model(torch.rand(2, 1, size, size))
    assert prediction.logits.shape == (2, 10)
    assert prediction.margin_lipschitz.shape == (10, 10)


@pytest.mark.parametrize(("depth", "width"), [(1, 2), (3, 6), (5, 16)])
def test_any_depth_and_width(depth: int, width: int) -> None:
    model = build_model("liresnet", 3, 8, in_channels=1, depth=depth, width=width, features=8)
    assert len(model.norm_names) == depth + 3  # stem, blocks, two of the neck
    assert model(torch.rand(1, 1, 8, 8)).layer_lipschitz.shape == (depth + 3,)


def small(**options: object) -> LipschitzNetwork:
    torch.manual_seed(0)
    model = build_model(
        "liresnet", 4, 8, in_channels=1, **{"depth": 2, "width": 8, "features": 16, **options}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_export_is_the_function_that_was_trained() -> None:
    model = small().eval()
    images = torch.rand(6, 1, 8, 8)
    network = model.export()
    exact = network.logits(network.trunk(images.double()))
    assert torch.allclose(model(images).logits.double(), exact, atol=1e-5)


def test_export_reads_back_from_records_and_tensors() -> None:
    network = small().export()
    again = ExportedNetwork.from_records(network.records(), network.tensors(), (1, 8, 8))
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(again.logits(again.trunk(x)), network.logits(network.trunk(x)))
    more = {**network.tensors(), "stowaway": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="'stowaway' belongs to no layer"):
        ExportedNetwork.from_records(network.records(), more, (1, 8, 8))
    with pytest.raises(ValueError, match="takes inputs of shape"):
        ExportedNetwork.from_records(network.records()[1:-3], network.tensors(), (2, 8, 8))


def test_a_weight_that_is_not_finite_is_not_exported() -> None:
    model = small()
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        model.export()


def test_margins_are_trunk_times_row_distance() -> None:
    model = small().eval()
    prediction = model(torch.rand(1, 1, 8, 8))
    rows = model.head.weight / model.head.weight.norm(dim=1, keepdim=True)
    trunk = prediction.layer_lipschitz.prod()
    expected = trunk * (rows[:, None] - rows[None]).norm(dim=2)
    assert torch.allclose(prediction.margin_lipschitz, expected, rtol=1e-4, atol=1e-5)


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_vectors_advance_in_training_only_and_not_when_held() -> None:
    model, images = small(), torch.rand(2, 1, 8, 8)
    start = buffers(model)
    model.eval()(images)
    assert all(torch.equal(start[name], now) for name, now in buffers(model).items())
    model.train()
    model.hold_power_iteration = True
    model(images)
    assert all(torch.equal(start[name], now) for name, now in buffers(model).items())
    model.hold_power_iteration = False
    model(images)
    assert any(not torch.equal(start[name], now) for name, now in buffers(model).items())


def test_a_held_forward_gives_the_estimates_of_the_one_before() -> None:
    model, images = small().train(), torch.rand(2, 1, 8, 8)
    first = model(images)
    model.hold_power_iteration = True
    assert torch.equal(model(images).margin_lipschitz, first.margin_lipschitz)


def test_autocast_leaves_the_estimates_alone() -> None:
    model, images = small().eval(), torch.rand(2, 1, 8, 8)
    plain = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(images)
    assert torch.equal(cast.margin_lipschitz, plain.margin_lipschitz)
    assert cast.logits.dtype == torch.float32
    assert not torch.equal(cast.logits, plain.logits)


def test_every_pixel_reaches_the_features() -> None:
    """28 px make 14×14 maps, which the neck's stride of 4 does not divide."""
    model = build_model("liresnet", 3, 28, in_channels=1, depth=1, width=8, features=16)
    images = torch.rand(1, 1, 28, 28, requires_grad=True)
    model.trunk(images).square().sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).all())


def test_the_product_of_estimates_may_leave_float32_on_the_way() -> None:
    model = small().eval()
    with torch.no_grad():
        for name in ("stem.conv.weight", "backbone.0.conv.beta", "neck.conv.weight"):
            model.trunk.get_parameter(name).mul_(2.0**50)
        model.trunk.get_parameter("neck.dense.weight").mul_(2.0**-60)
    prediction = model(torch.rand(1, 1, 8, 8))
    assert prediction.layer_lipschitz.prod() == torch.inf
    rows = torch.nn.functional.normalize(model.head.weight.double(), dim=1)
    expected = prediction.layer_lipschitz.double().prod() * torch.cdist(rows, rows)
    assert torch.allclose(prediction.margin_lipschitz.double(), expected, rtol=1e-5)
    assert 2.0**80 < prediction.margin_lipschitz.max() < 2.0**120


def test_one_seed_one_model() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(build_model("liresnet", 3, 8, depth=1, width=8).parameters())

    assert all(torch.equal(*pair) for pair in zip(weights(1), weights(1), strict=True))
    assert any(not torch.equal(*pair) for pair in zip(weights(1), weights(2), strict=True))


def test_the_neck_of_the_papers_text() -> None:
    model = build_model("liresnet", 3, 32, depth=1, width=8, features=16, neck_factor=2)
    shapes = {layer.name: layer.output_shape for layer in model.export().layers}
    assert shapes["neck.conv"] == (16, 4, 4)


def test_every_parameter_gets_a_gradient() -> None:
    model = small().train()
    prediction = model(torch.rand(4, 1, 8, 8))
    (prediction.logits.square().sum() + prediction.margin_lipschitz.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_the_estimate_is_below_the_certified_bound() -> None:
    model = small().eval()
    estimate = float(model(torch.rand(1, 1, 8, 8)).layer_lipschitz.prod().detach())
    bounds = [layer.norm_bound().value for layer in model.export().layers]
    assert estimate <= float(np.prod(bounds))


def test_no_layer_is_assumed_to_be_1_lipschitz() -> None:
    model = small()
    trunk = copy.deepcopy(model.trunk)
    trunk.add_module("relu", nn.ReLU())
    with pytest.raises(ValueError, match="'relu' is a ReLU, of which nothing says how"):
        LipschitzNetwork(trunk, model.head, model.input_shape, 5)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("liresnte", {}, "there is no model 'liresnte'; did you mean 'liresnet'?"),
        ("liresnet", {"widht": 8}, "no option 'widht'; did you mean 'width'?"),
        ("liresnet", {"width": 7}, "MinMax pairs channels and needs an even number: take 6 or 8"),
        ("liresnet", {"depth": 0}, "model.depth is 0, expected a whole number of at least 1"),
        ("liresnet", {"features": 9}, "model.features is 9"),
        ("liresnet", {"center": "half"}, "model.center is 'half'"),
        ("liresnet", {"image_size": 33}, "has stems for 8, 28, 32, 64, 224"),
    ],
)
def test_mistakes_name_the_mend(name: str, options: dict[str, object], sentence: str) -> None:
    arguments = {"num_classes": 3, "image_size": 8, "in_channels": 1, **options}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build_model(name, **arguments)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="takes floating-point images of shape"):
        small()(torch.rand(1, 1, 9, 9))
    with pytest.raises(ValueError, match="takes floating-point images"):
        small()(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_list_models() -> None:
    assert "liresnet_l12w588" in list_models()
    assert list_models() == sorted(list_models())
