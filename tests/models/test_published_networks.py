"""Against torchvision's and timm's networks, where they are installed."""

import jax
import numpy as np
import pytest

from jaxal.models.encoders import get_encoder
from jaxal.models.weights import import_weights

torch = pytest.importorskip("torch")

KEY = jax.random.key(0)


def perturbed(network):
    """Give a network parameters and statistics that are all its own, near those of some images."""
    torch.manual_seed(0)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("bias"):
                value.normal_(std=0.2)
            elif value.ndim == 1 and name.endswith("weight"):
                value.uniform_(0.5, 1.5)
        for layer in norms:
            layer.momentum = 1.0
        if norms:  # else what tells images apart would die out on the way
            network.train()(torch.randn(8, 3, 64, 64))
        for layer in norms:
            layer.running_mean += 0.2 * torch.randn_like(layer.running_mean)
            layer.running_var *= torch.empty_like(layer.running_var).uniform_(0.5, 2)
    return network.eval()


def compare(name, network, features, sizes, state=None):
    """Check features of random images against how much these differ from image to image."""
    encoder = get_encoder(name)
    shape = (2, 224, 224, 3)
    template = jax.eval_shape(encoder.init, KEY, jax.ShapeDtypeStruct(shape, np.float32))
    if state is None:
        state = {key: value.numpy() for key, value in perturbed(network).state_dict().items()}
    variables, _ = import_weights(encoder, template, state)
    for side in sizes:
        x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
        with torch.no_grad():
            expected = features(network, torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        found = jax.jit(encoder.apply)(variables, x)
        error = np.abs(found - expected).max() / expected.std(axis=0).mean()
        print(f"{name} at {side}: largest difference {error:.1e} standard deviations")
        assert error < 5e-3


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    network = getattr(models, name)(weights=None)
    head = "classifier" if name == "mobilenet_v2" else "fc"

    def features(network, x):
        setattr(network, head, torch.nn.Identity())
        return network(x)

    compare(name, network, features, (64, 75))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("vit_s16", "vit_small_patch16_224"), ("vit_b16", "vit_base_patch16_224")],
)
def test_timm(name, theirs):
    timm = pytest.importorskip("timm")
    network = timm.create_model(theirs, pretrained=False, dynamic_img_size=True)

    def features(network, x):
        return network.forward_features(x)[:, 0]

    compare(name, network, features, (224, 96, 256))


def test_clip_as_timm_converts_it(torch_ops):
    timm = pytest.importorskip("timm")
    state, width = torch_ops.State(), 768
    state.conv("visual.conv1", width, 3, 32)
    state.normal("visual.class_embedding", width)
    state.normal("visual.positional_embedding", 50, width)
    state.norm("visual.ln_pre", width, running=False)
    for i in range(12):
        block = f"visual.transformer.resblocks.{i}"
        state.norm(f"{block}.ln_1", width, running=False)
        state.normal(f"{block}.attn.in_proj_weight", 3 * width, width, std=width**-0.5)
        state.normal(f"{block}.attn.in_proj_bias", 3 * width, std=0.3)
        state.linear(f"{block}.attn.out_proj", width, width)
        state.norm(f"{block}.ln_2", width, running=False)
        state.linear(f"{block}.mlp.c_fc", 4 * width, width)
        state.linear(f"{block}.mlp.c_proj", width, 4 * width)
    state.norm("visual.ln_post", width, running=False)
    state.normal("visual.proj", width, 512, std=width**-0.5)
    network = timm.create_model(
        "vit_base_patch32_clip_quickgelu_224", pretrained=False, num_classes=512
    ).eval()
    theirs = {name: torch.from_numpy(array) for name, array in state.items()}
    convert = timm.models.vision_transformer.checkpoint_filter_fn
    network.load_state_dict(convert(theirs, network))
    compare("clip_vit_b32", network, lambda network, x: network(x), (224,), dict(state))
