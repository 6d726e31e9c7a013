from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.toy import toy_trial
from trainables.models.heads import Classifier, label_space
from trainables.models.timm_models import image_backbone, import_torchvision
from trainables.models.trunk import build_trunk
from trainables.models.video_vit import VideoViT
from trainables.training_settings import ClipSettings, ModelSettings

# Published parameters with the 400-way classifier of Kinetics, in torchvision's documentation;
# TSN on ResNet-50: timm's 25,557,032 without its 1000-way classifier.
PUBLISHED = {
    "r2plus1d_18": (31_505_325, 512),
    "r3d_18": (33_371_472, 512),
    "mc3_18": (11_695_440, 512),
    "s3d": (8_320_048, 1024),
    "tsn_resnet50": (25_557_032 - 2048 * 1000 - 1000 + 2048 * 400 + 400, 2048),
}


def convolutional(name: str, frames: int = 8, resolution: int = 32) -> nn.Module:
    clip = ClipSettings(frames=frames, seconds=1.0, resolution=resolution, normalize="imagenet")
    torch.manual_seed(0)
    return build_trunk(ModelSettings(name=name, vit=None), clip)


def test_a_vit_is_the_trunk_of_a_vit_s_name() -> None:
    trial = toy_trial()
    assert isinstance(build_trunk(trial.model, trial.clip), VideoViT)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_convolutional_trunk_is_the_published_network_without_its_classifier(name: str) -> None:
    trunk = convolutional(name)
    parameters, width = PUBLISHED[name]
    assert trunk.width == width
    assert sum(p.numel() for p in trunk.parameters()) == parameters - 400 * width - 400
    assert trunk.training
    feature = trunk.eval()(torch.randn(2, 3, 8, 32, 32))
    assert feature.shape == (2, width)
    assert (feature[0] != feature[1]).any()


def test_s3d_pools_as_torchvision_does_where_torchvision_can() -> None:
    import_torchvision()
    from torchvision.models.video import s3d

    # In training mode: untrained running statistics would shrink every feature to nothing.
    trunk = convolutional("s3d", frames=16, resolution=224).train()
    reference = s3d(weights=None).train()
    reference.classifier = nn.Identity()
    reference.load_state_dict(trunk.backbone.state_dict())
    video = torch.randn(1, 3, 16, 224, 224)
    with torch.no_grad():
        feature = trunk(video)
        torch.testing.assert_close(feature, reference(video))
    assert feature.mean() > 0.1


def test_tsn_is_the_mean_over_frames_of_an_image_network_s_features() -> None:
    trunk = convolutional("tsn_test_resnet").eval()
    network = image_backbone("test_resnet").eval()
    network.load_state_dict(trunk.backbone.state_dict())
    video = torch.randn(2, 3, 8, 32, 32)
    expected = torch.stack([network(video[:, :, t]) for t in range(8)]).mean(dim=0)
    torch.testing.assert_close(trunk(video), expected)


def test_an_unknown_backbone_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no image backbone 'resnet5'; the nearest is 'resnet5"):
        convolutional("tsn_resnet5")
    with pytest.raises(ValueError, match="no image backbone 'hf_hub:a/b'"):  # nothing is fetched
        convolutional("tsn_hf_hub:a/b")


def test_a_clip_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="'s3d' cannot take clips of 8 frames of 16 x 16"):
        convolutional("s3d", resolution=16)
    with pytest.raises(ValueError, match="'s3d' cannot take clips of 2 frames of 32 x 32"):
        convolutional("s3d", frames=2)


def test_the_running_statistics_are_part_of_the_weights() -> None:
    trunk = convolutional("tsn_test_resnet")
    model = Classifier(trunk, label_space({"a": ("x", "y")}, "union"))
    video, source = torch.randn(4, 3, 8, 32, 32), torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        model(3 + 2 * video, source)
    state = model.state_dict()
    counts = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 3 for count in counts)
    torch.manual_seed(1)
    other = Classifier(convolutional("tsn_test_resnet"), label_space({"a": ("x", "y")}, "union"))
    other.load_state_dict(state)
    found, expected = (m.eval()(video, source) for m in (other, model))
    assert torch.equal(found, expected)
