"""SAM's prompt encoder for any image size, with official parameter names."""

from __future__ import annotations

import copy

from segment_anything.modeling import PromptEncoder as OfficialPromptEncoder

from sam_common.sam.image_encoder import PATCH_SIZE


class PromptEncoder(OfficialPromptEncoder):
    """segment-anything's prompt encoder; it encodes coordinates relative to one image size, which `at` changes."""

    def at(self, height: int, width: int) -> PromptEncoder:
        """This encoder, sharing its parameters, for (padded) images of height × width pixels, multiples of 16."""
        view = copy.copy(self)
        view.input_image_size = (height, width)
        view.image_embedding_size = (height // PATCH_SIZE, width // PATCH_SIZE)
        view.mask_input_size = (height // PATCH_SIZE * 4, width // PATCH_SIZE * 4)
        return view
