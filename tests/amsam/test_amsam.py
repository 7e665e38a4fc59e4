"""AM-SAM as a whole: counts, what trains, what the frozen part gives, both levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amsam.amsam import AMSAM
from amsam.bilevel import first_order, unrolled
from amsam.config import add_amsam_config, build_amsam
from amsam.embedding_cache import content_key
from sam_common.config import CfgNode, get_cfg
from sam_common.errors import UserError


def config(*options: object) -> CfgNode:
    cfg = get_cfg()
    add_amsam_config(cfg)
    cfg.merge_from_list(["MODEL.SAM.SIZE", "T", "MODEL.SAM.WEIGHTS", "random", "MODEL.AMSAM.IMAGE_SIZE", 64, *options])
    return cfg


def entry(seed: int = 0) -> dict[str, Any]:
    """A bright square on noise, with its box and its labels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 128, (3, 50, 70), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(50, 70, dtype=torch.int64)
    labels[10:30, 20:50] = 1
    image[:, labels == 1] += 100
    return {"image": image, "boxes": torch.tensor([[20.0, 10, 50, 30]]), "labels": labels}


@pytest.fixture
def model() -> AMSAM:
    torch.manual_seed(0)
    return build_amsam(config())


def test_the_papers_trainable_parameters_group_by_group() -> None:
    """510,242 for ViT-B, one class, rank 4, as the specification lists them."""
    cfg = get_cfg()
    add_amsam_config(cfg)
    cfg.merge_from_list(["MODEL.SAM.SIZE", "B", "MODEL.SAM.WEIGHTS", "random"])
    with torch.device("meta"):
        model = build_amsam(cfg)
    decoder = model.decoder

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    counts = [
        *(count(decoder.transformer), count(decoder.output_upscaling), count(decoder.output_hypernetworks_mlps)),
        *(count(decoder.mask_tokens), count(decoder.iou_token), count(decoder.iou_prediction_head)),
        *(count(model.prompt_encoder), count(model.encoder), count(model.calibration)),
    ]
    assert counts == [23_552, 73_952, 279_616, 512, 256, 132_098, 256, 0, 0]
    assert count(model) == sum(counts) == 510_242


def test_a_is_the_upper_level_and_the_rest_the_lower(model: AMSAM) -> None:
    """Together they are all that trains; the encoder and the transformer's own weights are in neither."""
    lower, upper = model.levels()
    assert list(upper) == ["prompt_encoder.no_mask_embed.weight"]
    assert {*lower, *upper} == {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = [name for name in lower if name.startswith("encoder") or name.endswith(("q_proj.weight", "k_proj.weight"))]
    assert not frozen


def test_losses_reach_all_that_trains_but_the_quality_head(model: AMSAM) -> None:
    """Two finite losses, and a gradient everywhere else."""
    losses = model.train()([entry(), entry(1)])
    assert losses.keys() == {"loss_cross_entropy", "loss_dice"}
    sum(losses.values()).backward()
    idle = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert idle and all("iou_prediction_head" in name for name in idle)


def test_images_of_a_batch_have_boxes_of_their_own(model: AMSAM) -> None:
    """A batch of three, one of them with two boxes, is the three one by one; probabilities at the image's size."""
    second = {**entry(1), "boxes": torch.tensor([[0.0, 0, 70, 50]])}
    third = {**entry(2), "boxes": torch.tensor([[0.0, 0, 30, 30], [20, 10, 50, 30]])}
    for items in ([entry(), second], [entry(), second, third]):
        for item, output in zip(items, model.eval()(items), strict=True):
            torch.testing.assert_close(output["few_shot"], model([item])[0]["few_shot"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(output["few_shot"].sum(0), torch.ones(50, 70))


def test_a_box_is_scaled_with_its_image(model: AMSAM) -> None:
    """Its tokens are SAM's own of the box at the input's size."""
    encoded = model.encode({**entry(), "boxes": torch.tensor([[35.0, 25, 70, 50]])})
    prompts = model.prompt_encoder.at(64, 64)
    expected, _ = prompts(points=None, boxes=torch.tensor([[32.0, 32, 64, 64]]), masks=None)
    torch.testing.assert_close(encoded.box_tokens, expected[0])
    assert encoded.embedding.shape == (128, 4, 4)


def test_what_is_frozen_is_computed_once(model: AMSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels are encoded once, whether or not they bring a name; another box has its own tokens."""
    asked = []
    monkeypatch.setattr(model, "embed", lambda image: asked.append("image") or torch.zeros(128, 4, 4))
    monkeypatch.setattr(model, "box_tokens", lambda boxes, shape: asked.append("box") or torch.zeros(2, 128))
    for item in (entry(), entry(), {**entry(), "content": content_key(entry()["image"])}):
        model.encode(item)
    assert asked == ["image", "box"]
    model.encode({**entry(), "boxes": torch.tensor([[0.0, 0, 9, 9]])})
    assert asked == ["image", "box", "box"]
    model.encode(entry(1))
    assert asked == ["image", "box", "box", "image", "box"]


def test_without_boxes_only_the_dense_prompt_asks(model: AMSAM) -> None:
    """No box gives no tokens, which is not the box of the whole image; both give a class for every pixel."""
    bare, whole = ({**entry(), "boxes": torch.tensor(boxes).view(-1, 4)} for boxes in ([], [0.0, 0, 70, 50]))
    assert model.encode(bare).box_tokens.shape == (0, 128)
    first, second = (model.eval()([item])[0]["few_shot"] for item in (bare, whole))
    assert first.shape == second.shape == (2, 50, 70) and not torch.allclose(first, second)


def test_rank_0_trains_the_transformer_itself() -> None:
    """No LoRA: everything of the decoder trains, and it begins as SAM's."""
    plain = build_amsam(config("MODEL.AMSAM.LORA_RANK", 0))
    assert all(p.requires_grad for p in plain.decoder.parameters())
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]


def test_both_levels_of_the_model_itself(model: AMSAM) -> None:
    """`loss` is the training loss as a function; with a tiny step the unrolled gradient is the first-order one."""
    model.train()
    lower, upper = model.levels()
    direct = torch.stack(list(model([entry()]).values())).sum()
    torch.testing.assert_close(model.loss(lower, upper, [entry()]), direct)
    plain, _ = first_order(model.loss, lower, upper, [entry(1)])
    ahead, _ = unrolled(model.loss, lower, upper, [entry()], [entry(1)], 1e-6)
    (name,) = upper
    torch.testing.assert_close(plain[name], ahead[name], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("CALIBRATION", "mean", "choose one of per_sample"),
        ("TOKENS", "zeros", "choose one of random"),
        ("NUM_CLASSES", 0, "1 to 254"),
        ("NUM_CLASSES", 10**9, "1 to 254"),
        ("LORA_RANK", -1, "0 to 256"),
        ("LORA_RANK", 10**9, "0 to 256"),
        ("IMAGE_SIZE", 2**30, "16 to 4096"),
        ("IMAGE_SIZE", 100, "multiple of 16"),
        ("ALPHA", 2.0, "between 0 and 1"),
    ],
)
def test_keys_that_make_no_sense_are_named(key: str, value: object, message: str) -> None:
    """One line that names the key."""
    with pytest.raises(UserError, match=rf"MODEL\.AMSAM\.{key}.*{message}"):
        build_amsam(config(f"MODEL.AMSAM.{key}", value))
