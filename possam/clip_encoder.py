"""The frozen CLIP image and text towers, through open_clip.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; ConvNeXt towers of
OpenCLIP (Ilharco et al., 2021). The image tower is kept convolutional, so that one pass gives a feature map for any
image size and a mask can be pooled in it (FC-CLIP, Yu et al., NeurIPS 2023):

    F = norm_pre(stages(stem(image)))          features  [B, C, h, w]
    e = head(norm(mean of F inside a mask))    project   [..., C] -> [..., E]

With the full image as the mask, e is CLIP's own `encode_image`.

Shapes: B images, C channels of the feature map, E width of the joint embedding, N words or sentences.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip import CLIP, SimpleTokenizer, get_model_config
from timm.models import build_model_with_cfg, is_model, register_model
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from sam_common.errors import UserError
from sam_common.io.resources import resource
from sam_common.io.weights import misfits, read_weights, state_sha256

# timm's registration writes the registered function into the module's `__all__`, so that list is stated here.
__all__ = ["ClipEncoder", "build_clip", "official_clips", "possam_tiny_convnext"]

PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)  # RGB, 0..255: CLIP's own
PIXEL_STD = (68.5005327, 66.6321579, 70.32316305)


_OFFICIAL = {
    ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup"): {  # at a fixed revision: it can't change under a user
        "repo_id": "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
        "revision": "34c7ae1b1232c7b6d66988f54d89e0b6e4e246e3",
        "filename": "open_clip_pytorch_model.safetensors",
    }
}

_TINY_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "possam_tiny_convnext",
        "timm_pool": "",
        "timm_proj": "mlp",
        "image_size": 256,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}


class ClipEncoder(nn.Module):
    """Image features, their projection and text embeddings of a frozen CLIP.

    Always in evaluation mode and without gradients to its weights: `train()` leaves it as it is.

    Args:
        clip: open_clip's model with a timm ConvNeXt as its image tower.
        tokenizer: list of N sentences -> [N, L] int64 token ids.
        name: the architecture, for cache keys and messages.
        known_tokens: ids of the tokens the text tower was taught; None: all of them.
    """

    def __init__(
        self, clip: CLIP, tokenizer: SimpleTokenizer, *, name: str, known_tokens: frozenset[int] | None = None
    ) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.name = name
        self.known_tokens = known_tokens
        self.channels: int = clip.visual.trunk.num_features
        self.embed_dim: int = clip.text_projection.shape[1]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ClipEncoder:
        """Stays in evaluation mode whatever is asked: the towers are frozen."""
        return super().train(False)

    @property
    def temperature(self) -> Tensor:
        """CLIP's own logit scale, exp(logit_scale): 14.3 when randomly initialised, 100 in the official weights."""
        return self.clip.logit_scale.exp()

    def features(self, images: Tensor) -> Tensor:
        """Dense image features before CLIP's pooling.

        Args:
            images: [B, 3, H, W], normalised with `PIXEL_MEAN` and `PIXEL_STD`; H, W multiples of 32.

        Returns:
            [B, C, H/32, W/32] (the tiny CLIP: H/16, W/16).
        """
        return self.clip.visual.trunk.forward_features(images)

    def project(self, pooled: Tensor) -> Tensor:
        """Takes averages of `features` into the joint space with CLIP's own pooling norm and projection head.

        Args:
            pooled: [..., C].

        Returns:
            [..., E], not normalised.
        """
        columns = pooled.reshape(-1, self.channels, 1, 1)  # one pixel: the trunk's average pooling changes nothing
        embeddings = self.clip.visual.head(self.clip.visual.trunk.forward_head(columns))
        return embeddings.reshape(*pooled.shape[:-1], self.embed_dim)

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """[N, E] L2-normalised embeddings of N sentences; what is longer than the context is cut."""
        tokens = self.tokenizer(list(sentences)).to(self.clip.logit_scale.device)
        return self.clip.encode_text(tokens, normalize=True)

    def unknown_words(self, words: Sequence[str]) -> list[str]:
        """Those of `words` that hold a token the text tower was never taught; none for the official CLIPs.

        The embedded tiny CLIP knows the words of the generated world only. Others still get an embedding of their
        own, but one without meaning: tools warn.
        """
        if self.known_tokens is None:
            return []
        return [word for word in words if not self.known_tokens.issuperset(self.tokenizer.encode(word))]

    def text_sha256(self) -> str:
        """Hash of the text tower's weights: of what determines `encode_text`."""
        state = self.clip.state_dict()
        return state_sha256({name: state[name] for name in state if not name.startswith("visual.")})


def build_clip(name: str, weights: str) -> ClipEncoder:
    """A CLIP by name, frozen, with its weights loaded. Works under `torch.device("meta")` with weights `random`.

    Args:
        name: `convnext_large_d_320`, or `tiny` for size T.
        weights: an official tag (`laion2b_s29b_b131k_ft_soup`, downloaded once to the hub cache), the path of a
            file, `embedded` (`tiny` only), or `random`.

    Raises:
        UserError: unknown name or weights, no network, a damaged file, or a file of another model.
    """
    architectures = sorted({"tiny", *(known for known, _ in _OFFICIAL)})
    if name not in architectures:
        raise UserError(f"there is no CLIP {name!r}; known: {', '.join(architectures)}")
    if name == "tiny" and not is_model("possam_tiny_convnext"):
        register_model(possam_tiny_convnext)  # timm's registry is where open_clip looks for image towers
    config: dict[str, Any] = _TINY_CONFIG if name == "tiny" else get_model_config(name)
    # open_clip.create_model moves the model to a device, which the meta device can't; its class doesn't.
    clip = CLIP(config["embed_dim"], dict(config["vision_cfg"]), dict(config["text_cfg"]))
    tokenizer = SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    known_tokens = None if weights == "random" else _load_weights(clip, _weights_file(name, weights))
    return ClipEncoder(clip, tokenizer, name=name, known_tokens=known_tokens)


def official_clips() -> dict[str, tuple[str, Path | None]]:
    """Official tag -> its address, and its file in the hub cache, None where that has not been downloaded."""
    found = {}
    for (_, tag), file in _OFFICIAL.items():
        path = try_to_load_from_cache(**file)
        found[tag] = (hf_hub_url(**file), Path(path) if isinstance(path, str) else None)
    return found


def possam_tiny_convnext(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """The image tower of the tiny CLIP: a ConvNeXt with stride 16 (its last stage is dilated), 1.9M parameters.

    Stride 16 gives 256-pixel images a 16×16 map, in which objects of 50 pixels still cover several cells. No layer
    scale: it's there for depth, and slows a short training down.
    """
    kwargs |= {"depths": (1, 2, 4, 2), "dims": (32, 64, 128, 256), "output_stride": 16, "ls_init_value": None}
    kwargs["pretrained_cfg"] = {"url": "", "num_classes": 0, "input_size": (3, 256, 256), "pool_size": (16, 16)}
    return build_model_with_cfg(ConvNeXt, "possam_tiny_convnext", pretrained, **kwargs)


def _weights_file(name: str, weights: str) -> Path:
    if weights == "embedded":
        if name != "tiny":
            raise UserError(f"CLIP {name!r} has no embedded weights; give an official tag or the path of a file")
        return resource("weights/tiny_clip.safetensors")
    if (name, weights) in _OFFICIAL:
        return _download(_OFFICIAL[name, weights])
    if os.path.isfile(weights):
        return Path(weights)
    tags = [tag for known, tag in _OFFICIAL if known == name] + ["embedded"] * (name == "tiny") + ["random"]
    raise UserError(f"CLIP weights {weights!r} are neither a file nor one of {', '.join(tags)}; set MODEL.CLIP.WEIGHTS")


def _download(file: dict[str, str]) -> Path:
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # without a network it reports ten lines of retries before our one
    try:
        return Path(hf_hub_download(file["repo_id"], file["filename"], revision=file["revision"]))
    except (OSError, HfHubHTTPError) as error:
        reason = type(error).__name__
        raise UserError(
            f"cannot download the CLIP weights ({reason}): fetch {hf_hub_url(**file)} on a machine with network "
            "and give the path of the file as MODEL.CLIP.WEIGHTS"
        ) from error
    finally:
        hub.setLevel(level)


def _load_weights(clip: CLIP, path: Path) -> frozenset[int] | None:
    """Loads a file strictly and returns the tokens it knows (None: all)."""
    state = read_weights(path)
    known_tokens = None
    if "token_ids" in state:
        state = _with_full_token_table(state, clip.token_embedding.weight.shape, path)
        known_tokens = frozenset(state.pop("token_ids").tolist())
    if found := misfits(clip.state_dict(), state):
        raise UserError(f"{path} holds the weights of another CLIP ({found}); give the file of the model in use")
    clip.load_state_dict(state)
    return known_tokens


def _with_full_token_table(state: dict[str, Tensor], size: torch.Size, path: Path) -> dict[str, Tensor]:
    """Replaces `token_rows` [K, D] of the tokens `token_ids` [K] by the whole table of size [V, D].

    A small file stores only the rows its training met. The others are drawn from a fixed seed with the spread of
    the stored ones, so that an unknown word has an embedding of its own, the same on every machine.

    Raises:
        UserError: the two are no such table.
    """
    state = dict(state)
    ids, rows = state["token_ids"].long(), state.pop("token_rows", torch.zeros(0)).float()
    if ids.ndim != 1 or rows.shape != (len(ids), size[1]) or not ((ids >= 0) & (ids < size[0])).all():
        raise UserError(f"{path} holds the weights of another CLIP, or is damaged: its token_ids do not fit token_rows")
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(size, generator=generator, device="cpu") * rows.std()
    table[ids] = rows
    return {**state, "token_embedding.weight": table}
