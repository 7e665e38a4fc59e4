"""PosSAM as a whole, in size T with random encoders: what trains, what comes out, what is remembered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from possam.config import add_possam_config, build_possam
from possam.possam import PosSAM, padded_size
from possam.side_stream import side_stream
from sam_common.config import CfgNode, get_cfg
from sam_common.errors import UserError
from sam_common.structures import Category, Segments

VOCABULARY = (Category("dog", ("dog", "puppy")), Category("cat", ("cat",)), Category("sky", ("sky",), False))


def config(*options: str) -> CfgNode:
    cfg = get_cfg()
    add_possam_config(cfg)
    cfg.merge_from_file("configs/possam_T.yaml")
    small = ["MODEL.SAM.WEIGHTS", "random", "MODEL.CLIP.WEIGHTS", "random", "INPUT.IMAGE_SIZE", "64"]
    cfg.merge_from_list([*small, "MODEL.POSSAM.LOSS.NUM_POINTS", "64", *options])
    return cfg


def entry(height: int, width: int, *, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, : height // 2] = True
    masks[1, height // 2 :] = True
    return {
        "image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator),
        "height": 2 * height,
        "width": 2 * width,
        "file_name": f"{seed}.png",
        "image_id": seed,
        "vocabulary": VOCABULARY,
        "segments": Segments(torch.tensor([0, 2]), masks),
        "seed": seed,
    }


@pytest.fixture
def model() -> PosSAM:
    torch.manual_seed(0)
    return build_possam(config())


def test_a_gpu_is_waited_for_once(model: PosSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the image on, the host needs one table of an image's queries, at the end: fake tensors of a GPU refuse the
    rest."""
    text = model.text_embeddings(VOCABULARY)
    num_classes = text.num_classes  # read once for a vocabulary, not for an image
    read = []

    def tolist(tensor: torch.Tensor) -> list[list[float]]:
        read.append(tuple(tensor.shape))
        return [[1.0, 0.0, 1.0, 0.5]] * len(tensor)

    monkeypatch.setattr(FakeTensor, "tolist", tolist)
    monkeypatch.setattr("possam.possam.side_stream", lambda device: side_stream(torch.device("cpu")))  # no real streams
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            on_gpu = text.to("cuda:0")
            vars(on_gpu)["num_classes"] = num_classes
            model.eval()._apply(lambda tensor: torch.empty_like(tensor, device="cuda:0"))
            model.text_embeddings = lambda vocabulary: on_gpu
            outputs = model([entry(64, 48), entry(40, 64)])
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    assert [output["panoptic_seg"][0].device.type for output in outputs] == ["cuda", "cuda"]
    assert read == [(30, 4), (30, 4)]


def test_everything_but_the_encoders_trains(model: PosSAM) -> None:
    """One step's losses are finite and reach every trainable parameter; both encoders stay frozen."""
    losses = model.train()([entry(64, 48), entry(40, 64, seed=1)])
    assert len(losses) == 4 * 4  # class, mask, dice and iou at 4 prediction points
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in trainable} == {
        "backbone.feature_pyramid",
        "head.pixel_decoder",
        "head.decoder",
        "head.pooling",
        "head.iou_head",
        "head.classifier",
    }
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trainable
    assert not model.clip.training


def test_all_three_outputs_have_the_original_size(model: PosSAM) -> None:
    """Images of different sizes in one batch come back at their own size, with ids and classes that agree."""
    model.inference = type(model.inference)(panoptic=True, semantic=True, instances=True)
    batch = [entry(64, 48), entry(40, 64, seed=1)]
    for given, output in zip(batch, model.eval()(batch), strict=True):
        size = (given["height"], given["width"])
        ids, segments = output["panoptic_seg"]
        assert model.outputs == output.keys()
        assert ids.shape == size and output["sem_seg"].shape == (3, *size)
        assert set(ids.unique().tolist()) - {0} == {segment["id"] for segment in segments}
        assert output["instances"].pred_masks.shape[1:] == size
        assert all(VOCABULARY[c].is_thing for c in output["instances"].pred_classes)


def test_a_batch_equals_its_images_one_by_one(model: PosSAM) -> None:
    """Padding to a neighbour's size is the only thing a batch shares; equal sizes give equal results."""
    batch = [entry(64, 64), entry(64, 64, seed=1)]
    model.inference = type(model.inference)(panoptic=False, semantic=True)
    together = model.eval()(batch)
    for given, output in zip(batch, together, strict=True):
        torch.testing.assert_close(model([given])[0]["sem_seg"], output["sem_seg"], atol=1e-4, rtol=1e-4)


def test_the_training_vocabulary_travels_with_the_weights(model: PosSAM) -> None:
    """A loaded checkpoint knows which classes are seen; training twice on one vocabulary adds nothing."""
    model.train()
    model([entry(64, 64)])
    model([entry(64, 64)])
    assert model.training_vocabulary == VOCABULARY
    again = build_possam(config())
    again.load_state_dict(model.state_dict())
    assert again.training_vocabulary == VOCABULARY


def test_two_vocabularies_in_one_batch_are_refused(model: PosSAM) -> None:
    """The error names both images."""
    other = entry(64, 64, seed=1) | {"vocabulary": VOCABULARY[:2]}
    with pytest.raises(UserError, match=r"0\.png and 1\.png"):
        model([entry(64, 64), other])


@pytest.mark.parametrize(
    "options",
    [
        ("FEATURE_PYRAMID", "resized"),
        ("POOLING", "maskpool_sam"),
        ("POOLING", "maskpool_clip"),
        ("POOLING", "cross_attention"),
        ("IOU_HEAD", "False"),
        ("DECODER.NAME", "two_way", "DECODER.NUM_LAYERS", "1"),
        ("DECODER.NAME", "two_way", "DECODER.NUM_LAYERS", "9"),
        ("ENSEMBLE.NAME", "geometric"),
        ("ENSEMBLE.NAME", "ldp"),
        ("ENSEMBLE.NAME", "clip"),
        ("ENSEMBLE.GRANULARITY", "mask"),
        ("ENSEMBLE.GRANULARITY", "element"),
    ],
    ids=" ".join,
)
def test_every_switch_trains_and_predicts(options: tuple[str, ...]) -> None:
    """Each row of Tables 4 to 7 is a configuration: finite losses, gradients everywhere, and a prediction."""
    keys = [f"MODEL.POSSAM.{word}" if i % 2 == 0 else word for i, word in enumerate(options)]
    model = build_possam(config(*keys))
    losses = model.train()([entry(64, 64)])
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert "panoptic_seg" in model.eval()([entry(64, 64)])[0]


def test_an_unknown_switch_lists_the_choices() -> None:
    """The error names the key and what could be written instead."""
    with pytest.raises(UserError, match=r"MODEL\.POSSAM\.POOLING is 'lpd'; choose one of ldp, maskpool_sam"):
        build_possam(config("MODEL.POSSAM.POOLING", "lpd"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("WIDTH", "50", "MODEL.POSSAM.WIDTH is 50; .* multiple of 32"),
        ("WIDTH", "0", "MODEL.POSSAM.WIDTH is 0"),
        ("DECODER.NUM_HEADS", "3", "multiple of 96"),
        ("NUM_QUERIES", "0", "MODEL.POSSAM.NUM_QUERIES is 0; give at least 1"),
    ],
)
def test_sizes_that_no_layer_can_have(key: str, value: str, message: str) -> None:
    """The error names the key, before anything is built or loaded."""
    with pytest.raises(UserError, match=message):
        build_possam(config(f"MODEL.POSSAM.{key}", value))


def test_the_padded_size_holds_every_image_and_is_a_multiple() -> None:
    """The larger of the asked square and the images, rounded up to the divisor."""
    assert padded_size([(100, 40), (64, 200)], 128, 32) == (128, 224)
    assert padded_size([(1, 1)], 0, 32) == (32, 32)
