"""The image encoder against segment-anything's.

Position tables are drawn at random everywhere: they start as zeros, and zeros hide wrong positions.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from sam_common.sam import image_encoder
from sam_common.sam.attention import relative_position_attention
from sam_common.sam.build import SIZES, build_image_encoder
from sam_common.sam.image_encoder import ImageEncoder, WindowAttention, pad_to_multiple, strips

TOLERANCE = {"rtol": 0.0, "atol": 1e-4}


def official_encoder(img_size: int, dim: int, depth: int, heads: int, global_blocks: tuple, **kwargs) -> nn.Module:
    return ImageEncoderViT(
        img_size=img_size,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=global_blocks,
        use_rel_pos=True,
        window_size=kwargs.get("window_size", 14),
        out_chans=kwargs.get("out_channels", 256),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def randomise(encoder: nn.Module) -> None:
    """Every parameter away from its initial value, positions and biases included."""
    for name, parameter in encoder.named_parameters():
        parameter.data.normal_(std=0.5 if "rel_pos" in name or parameter.ndim == 1 else 0.05)


def resize_tables(state: dict[str, Tensor], grid_h: int, grid_w: int, global_blocks: tuple) -> dict[str, Tensor]:
    """The state dict of a segment-anything encoder for another grid: bicubic and linear resizing of its tables."""
    state = dict(state)
    pos = state["pos_embed"].permute(0, 3, 1, 2)
    state["pos_embed"] = F.interpolate(pos, (grid_h, grid_w), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    for i in global_blocks:
        for axis, size in (("h", grid_h), ("w", grid_w)):
            name = f"blocks.{i}.attn.rel_pos_{axis}"
            state[name] = F.interpolate(state[name].T[None], 2 * size - 1, mode="linear")[0].T
    return state


@pytest.fixture(scope="module")
def small() -> tuple[ImageEncoder, nn.Module]:
    """Both implementations built for 1024 pixels, one windowed and one global block, with the same weights."""
    torch.manual_seed(0)
    ours = ImageEncoder(32, 2, num_heads=2, global_blocks=(1,), out_channels=16)
    theirs = official_encoder(1024, 32, 2, 2, (1,), out_channels=16)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_equals_segment_anything_at_1024(small: tuple[ImageEncoder, nn.Module]) -> None:
    """Same weights, same embeddings at the pretraining size; 64 tokens leave padded windows of 14."""
    ours, theirs = small
    image = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), **TOLERANCE)


def test_equals_segment_anything_built_for_512(small: tuple[ImageEncoder, nn.Module]) -> None:
    """Ours, built for 1024, equals a segment-anything encoder built for 512 with resized tables; batch of two."""
    ours, _ = small
    theirs = official_encoder(512, 32, 2, 2, (1,), out_channels=16)
    theirs.load_state_dict(resize_tables(ours.state_dict(), 32, 32, (1,)))
    images = torch.randn(2, 3, 512, 512)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), **TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(208, 320), (16, 224), (1040, 48)])
def test_equals_segment_anything_on_any_size(small: tuple[ImageEncoder, nn.Module], height: int, width: int) -> None:
    """Not square, smaller than a window, larger than the pretraining size: tables of each axis resized apart."""
    ours, _ = small
    theirs = official_encoder(1024, 32, 2, 2, (1,), out_channels=16)
    state = resize_tables(ours.state_dict(), height // 16, width // 16, (1,))
    theirs.pos_embed = nn.Parameter(state["pos_embed"])
    theirs.blocks[1].attn.rel_pos_h = nn.Parameter(state["blocks.1.attn.rel_pos_h"])
    theirs.blocks[1].attn.rel_pos_w = nn.Parameter(state["blocks.1.attn.rel_pos_w"])
    theirs.load_state_dict(state)
    images = torch.randn(1, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), **TOLERANCE)


def test_vit_b_equals_segment_anything() -> None:
    """The real ViT-B, twelve blocks deep, at 512 pixels."""
    ours = build_image_encoder("B")
    randomise(ours)
    with torch.device("meta"):
        theirs = official_encoder(512, 768, 12, 12, (2, 5, 8, 11))
    theirs.load_state_dict(resize_tables(ours.state_dict(), 32, 32, (2, 5, 8, 11)), assign=True)
    image = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), **TOLERANCE)


def test_gradients_equal_segment_anything() -> None:
    """The tiny encoder trains as segment-anything's would: every parameter gets the same gradient."""
    size = SIZES["T"]
    ours = build_image_encoder("T")
    theirs = official_encoder(
        256, size.dim, size.depth, size.num_heads, size.global_blocks, window_size=8, out_channels=128
    )
    for name, parameter in ours.named_parameters():
        if "pos" in name:
            parameter.data.normal_(std=0.1)
    theirs.load_state_dict(ours.state_dict())
    images, direction = torch.randn(1, 3, 256, 256), torch.randn(1, 128, 16, 16)
    for encoder in (ours, theirs):
        (encoder(images) * direction).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-3, msg=name)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    """Invariant: an image has the same embedding alone and in a batch."""
    encoder = build_image_encoder("T").eval()
    randomise(encoder)
    images = torch.randn(3, 3, 96, 160)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), rtol=0.0, atol=1e-5)


def test_padding_is_filled_with_the_value() -> None:
    """By hand: 1 × 2 tokens padded to windows of 2 get a row of the value below; whole windows are left alone."""
    x = torch.tensor([[[[1.0], [2.0]]]])
    padded = pad_to_multiple(x, 2, value=torch.tensor([7.0]))
    torch.testing.assert_close(padded[0, :, :, 0], torch.tensor([[1.0, 2.0], [7.0, 7.0]]))
    assert pad_to_multiple(padded, 2, value=torch.tensor([7.0])) is padded


def test_padded_keys_still_attend() -> None:
    """By hand: one real token in a window of 2 × 2. Its query is zero, so all four keys weigh the same; values are 8
    for the token and, through the bias, 4 for each of three padded ones: (8 + 3 · 4) / 4 = 5."""
    attention = WindowAttention(1, 1, use_rel_pos=True, input_size=(2, 2))
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.tensor([[0.0], [0.0], [4.0]]))
        attention.qkv.bias.copy_(torch.tensor([0.0, 0.0, 4.0]))
        attention.proj.weight.fill_(1)
        attention.proj.bias.zero_()
        assert attention(torch.ones(1, 1, 1, 1)).item() == pytest.approx(5)


def test_padding_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 × 10 tokens in windows of 8: projections, norms, MLPs and queries of every block are 60 tokens, not 128."""
    encoder, seen, queries = build_image_encoder("T"), set(), []
    for block in encoder.blocks:
        for module in (block.attn.qkv, block.attn.proj, block.norm1, block.mlp.lin1):
            module.register_forward_pre_hook(lambda _, args: seen.add(args[0].shape[:-1].numel()))

    def attend(q: Tensor, *args: Tensor) -> Tensor:
        queries.append(q[:, 0, ..., 0].numel())
        return relative_position_attention(q, *args)

    monkeypatch.setattr(image_encoder, "relative_position_attention", attend)
    with torch.no_grad():
        encoder(torch.randn(1, 3, 96, 160))
    assert seen == {60} and sum(queries) == 60 * len(encoder.blocks)


@pytest.mark.parametrize(
    ("length", "covered", "real"),
    [(8, [8], [8]), (16, [16], [8]), (6, [8], [6]), (14, [8, 8], [8, 6]), (18, [16, 8], [8, 2])],
)
def test_strips_cover_an_axis(length: int, covered: list[int], real: list[int]) -> None:
    """By hand, with windows of 8: whole ones, a padded one alone, both."""
    assert strips(length, 8) == (covered, real)


def test_frozen_it_leaves_nothing_for_a_backward_pass() -> None:
    """No graph and no kept tensor, although gradients are on."""
    encoder, kept = build_image_encoder("T").requires_grad_(False), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        embeddings = encoder(torch.randn(1, 3, 64, 64))
    assert embeddings.grad_fn is None and not kept


def test_compiled_blocks_are_the_same() -> None:
    """Traced without a compiler: embeddings of two batches, gradients and names as before; blocks share graphs."""
    torch._dynamo.reset()
    encoder = build_image_encoder("T")
    randomise(encoder)
    names = set(encoder.state_dict())

    def embed(images: Tensor) -> list[Tensor]:
        embeddings = encoder(images)
        gradients = torch.autograd.grad(embeddings.square().sum(), list(encoder.blocks.parameters()))
        return [embeddings.detach(), *gradients]

    batches = [torch.randn(count, 3, 64, 96) for count in (1, 2)]
    expected = [embed(images) for images in batches]
    torch._dynamo.utils.counters.clear()
    encoder.compile_blocks(backend="aot_eager")
    for images, results in zip(batches, expected, strict=True):
        for found, result in zip(embed(images), results, strict=True):
            torch.testing.assert_close(found, result, rtol=0, atol=1e-4 * float(result.abs().max()))
    assert set(encoder.state_dict()) == names
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2 * len(batches) < 8
