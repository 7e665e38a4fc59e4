"""The frozen CLIP towers: what they compute, what they hold, how they're loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from possam import clip_encoder
from possam.clip_encoder import PIXEL_MEAN, PIXEL_STD, ClipEncoder, build_clip
from sam_common.data.generated.scene import generate_scene
from sam_common.data.generated.vocabulary import world_vocabulary
from sam_common.errors import UserError
from sam_common.io.resources import resource
from sam_common.layers.pixels import PixelNormalization

LARGE = "convnext_large_d_320"


@pytest.fixture(scope="module")
def tiny() -> ClipEncoder:
    torch.manual_seed(0)
    return build_clip("tiny", "random")


@pytest.fixture(scope="module")
def embedded() -> ClipEncoder:
    return build_clip("tiny", "embedded")


def test_the_large_clip_has_the_papers_parameters() -> None:
    """351,772,609 on the meta device (spec section 4), 1536 channels, 768 dimensions; nothing is allocated."""
    with torch.device("meta"):
        clip = build_clip(LARGE, "random")
    assert sum(p.numel() for p in clip.parameters()) == 351_772_609
    assert all(p.is_meta for p in clip.parameters())
    assert (clip.channels, clip.embed_dim) == (1536, 768)


def test_pooling_everything_is_clips_own_image_embedding_large() -> None:
    """The tower of B/L/H: stride 32, and project(mean of the full map) equals open_clip's encode_image."""
    with torch.device("meta"):
        clip = build_clip(LARGE, "random")
    visual = clip.clip.visual.to_empty(device="cpu")
    noise = torch.randn(max(parameter.numel() for parameter in visual.parameters())) * 0.02
    for parameter in visual.parameters():  # 200M numbers: drawing each of them would take most of the test's time
        parameter.copy_(noise[: parameter.numel()].view_as(parameter))
    images = torch.randn(1, 3, 64, 64)
    features = clip.features(images)
    assert features.shape == (1, 1536, 2, 2)
    torch.testing.assert_close(clip.project(features.mean((-2, -1))), clip.clip.encode_image(images))


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_pooling_everything_is_clips_own_image_embedding(tiny: ClipEncoder, size: tuple[int, int]) -> None:
    """The same invariant for size T, at two sizes and batch 2; its stride is 16."""
    images = torch.randn(2, 3, *size)
    features = tiny.features(images)
    assert features.shape == (2, tiny.channels, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(tiny.project(features.mean((-2, -1))), tiny.clip.encode_image(images))


def test_project_treats_leading_dimensions_as_a_batch(tiny: ClipEncoder) -> None:
    """[B, Q, C] gives row by row what [C] gives, and no mask at all gives [B, 0, E]."""
    pooled = torch.randn(2, 3, tiny.channels)
    embeddings = tiny.project(pooled)
    assert embeddings.shape == (2, 3, tiny.embed_dim)
    torch.testing.assert_close(embeddings[1, 2], tiny.project(pooled[1, 2]))
    assert tiny.project(pooled[:, :0]).shape == (2, 0, tiny.embed_dim)


def test_text_is_encoded_by_open_clip_whatever_the_company(tiny: ClipEncoder) -> None:
    """Equal to open_clip's encode_text, of length 1, and a sentence's embedding doesn't depend on its batch."""
    sentences = ["a dog", "a photo of a cat in the scene", "grass"]
    embeddings = tiny.encode_text(sentences)
    reference = F.normalize(tiny.clip.encode_text(tiny.tokenizer(sentences)), dim=-1)
    torch.testing.assert_close(embeddings, reference)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(tiny.encode_text(sentences[::-1])[0], embeddings[2])


def test_it_stays_frozen_and_in_evaluation_mode() -> None:
    """train() changes neither it nor a part of it, and no weight asks for a gradient."""
    clip = build_clip("tiny", "random").train()
    torch.nn.ModuleList([clip]).train()
    assert not any(module.training for module in clip.modules())
    assert not any(parameter.requires_grad for parameter in clip.parameters())


def test_a_random_clip_has_temperature_14(tiny: ClipEncoder) -> None:
    """exp(log(1 / 0.07)) = 14.2857: CLIP's initial logit scale."""
    assert tiny.temperature.item() == pytest.approx(1 / 0.07)


def test_building_registers_once_and_changes_no_export() -> None:
    """timm's registration appends to `__all__`; the module states that list itself and it stays the same."""
    before = list(clip_encoder.__all__)
    build_clip("tiny", "random")
    assert clip_encoder.__all__ == before


def test_a_file_of_a_few_token_rows_gives_every_word_an_embedding(tiny: ClipEncoder, tmp_path: Path) -> None:
    """Stored rows come back as stored; the others are the same at every load, have their spread, and differ."""
    state = {name: value.contiguous() for name, value in tiny.clip.state_dict().items()}
    table = state.pop("token_embedding.weight")
    ids = tiny.tokenizer(["a dog"]).unique()
    path = tmp_path / "clip.safetensors"
    save_file({**state, "token_ids": ids, "token_rows": table[ids]}, path)
    first, second = build_clip("tiny", str(path)), build_clip("tiny", str(path))
    loaded = first.clip.token_embedding.weight
    assert torch.equal(loaded[ids], table[ids])
    assert torch.equal(loaded, second.clip.token_embedding.weight)
    assert loaded.std().item() == pytest.approx(table[ids].std().item(), rel=0.05)
    cat, cow = first.encode_text(["a cat", "a cow"]).unbind()
    assert not torch.allclose(cat, cow, atol=1e-3)
    assert first.unknown_words(["dog", "Dog", "cat", "a dog"]) == ["cat"]


def test_a_whole_token_table_knows_every_word(tiny: ClipEncoder) -> None:
    """Official weights hold the full table: no word is reported."""
    assert tiny.unknown_words(["xylophone"]) == []


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("vit_huge", "random", "there is no CLIP 'vit_huge'; known: convnext_large_d_320, tiny"),
        ("tiny", "nothing.pt", "'nothing.pt' are neither a file nor one of embedded, random"),
        (LARGE, "embedded", "no embedded weights"),
    ],
)
def test_unknown_names_list_the_known_ones(name: str, weights: str, message: str) -> None:
    """A misspelt architecture or tag says what could stand there."""
    with torch.device("meta"), pytest.raises(UserError, match=message):
        build_clip(name, weights)


def test_weights_of_another_model_name_the_keys(tiny: ClipEncoder, tmp_path: Path) -> None:
    """One line names what's missing, what's unexpected and what has another shape."""
    state = {name: value.contiguous() for name, value in tiny.clip.state_dict().items()}
    del state["ln_final.bias"]
    state["extra"] = torch.zeros(1)
    state["logit_scale"] = torch.zeros(3)
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(UserError) as caught:
        build_clip("tiny", str(path))
    found = "1 missing (ln_final.bias); 1 unexpected (extra); 1 of another shape (logit_scale (3,) for ())"
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["no rows", "another width", "beyond the vocabulary", "one number"])
def test_token_rows_that_are_no_table(change: str, tiny: ClipEncoder, tmp_path: Path) -> None:
    """Error: rows are missing, of another model, of a token that there is not; the ids are no list."""
    state = dict(tiny.clip.state_dict())
    rows = state.pop("token_embedding.weight")[:3].clone()
    state |= {"token_ids": torch.arange(3), "token_rows": rows}
    if change == "no rows":
        del state["token_rows"]
    elif change == "another width":
        state["token_rows"] = rows[:, :-1].contiguous()
    else:
        state["token_ids"] = torch.tensor([0, 1, 10**9] if change == "beyond the vocabulary" else 3)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors .*token_ids"):
        build_clip(tiny.name, str(tmp_path / "a.safetensors"))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """Half a file is told by its name."""
    path = tmp_path / "half.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match=r"half\.safetensors cannot be read") as caught:
        build_clip("tiny", str(path))
    assert "\n" not in str(caught.value)


def test_without_network_the_user_is_told_which_file_to_fetch(monkeypatch) -> None:
    """The address with its pinned revision and where to put the path; asked for once, at that revision."""

    def offline(repository: str, name: str, *, revision: str) -> str:
        assert len(revision) == 40
        raise OSError("no network")

    monkeypatch.setattr(clip_encoder, "hf_hub_download", offline)
    with torch.device("meta"), pytest.raises(UserError) as caught:
        build_clip(LARGE, "laion2b_s29b_b131k_ft_soup")
    assert "https://huggingface.co/laion/CLIP-convnext_large_d_320" in str(caught.value)
    assert "MODEL.CLIP.WEIGHTS" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_official_files_are_listed_with_their_place(tmp_path: Path, monkeypatch) -> None:
    """The address is the pinned one; the file is found once it lies in the hub's cache at that revision."""
    (tag,) = clip_encoder.official_clips()
    assert tag == "laion2b_s29b_b131k_ft_soup"
    file = clip_encoder._OFFICIAL[LARGE, tag]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    url = f"https://huggingface.co/{file['repo_id']}/resolve/{file['revision']}/{file['filename']}"
    assert clip_encoder.official_clips()[tag] == (url, None)
    path = (
        tmp_path / f"models--{file['repo_id'].replace('/', '--')}" / "snapshots" / file["revision"] / file["filename"]
    )
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert clip_encoder.official_clips()[tag] == (url, path)


def test_the_embedded_file_is_small_and_float16() -> None:
    """At most 8 MB, half precision, and of the token table only the rows in use."""
    path = resource("weights/tiny_clip.safetensors")
    state = load_file(path)
    assert path.stat().st_size <= 8_000_000
    assert all(value.dtype == torch.float16 for name, value in state.items() if name != "token_ids")
    assert len(state["token_ids"]) == len(state["token_rows"]) < 200


def test_the_embedded_clip_knows_its_world_only(embedded: ClipEncoder) -> None:
    """Every word of the generated world is known, others are reported."""
    words = [word for category in world_vocabulary() for word in category.synonyms]
    assert embedded.unknown_words([*words, "giraffe"]) == ["giraffe"]


def test_the_embedded_clip_names_regions(embedded: ClipEncoder) -> None:
    """20 scenes that no data set holds, features pooled in ground-truth masks: well over half of the regions find
    their name among all 56 (chance: 2%)."""
    vocabulary = world_vocabulary()
    text = embedded.encode_text([f"a photo of a {category.name}." for category in vocabulary])
    normalize = PixelNormalization(PIXEL_MEAN, PIXEL_STD)
    hits = []
    for index in range(20):
        scene = generate_scene(987_654, index)
        image = normalize(torch.from_numpy(scene.image).permute(2, 0, 1))
        features = embedded.features(image[None])[0]
        for category, mask in scene.segments():
            cover = F.interpolate(torch.from_numpy(mask)[None, None].float(), features.shape[-2:], mode="area")[0] > 0.5
            pooled = (features * cover).sum((-2, -1)) / cover.sum().clamp(min=1)
            hits.append(bool((embedded.project(pooled) @ text.T).argmax() == category))
    assert sum(hits) / len(hits) > 0.7
