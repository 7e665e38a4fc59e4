"""The generated world: a deterministic data set that any machine can make, in the official formats."""

from sam_common.data.generated.scene import Scene, Thing, generate_scene
from sam_common.data.generated.specs import FOLDER, SPLITS, draw_scenes, scene_specs, with_command
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.data.generated.writer import Split

__all__ = [
    "FOLDER",
    "SPLITS",
    "Scene",
    "Split",
    "Thing",
    "draw_scenes",
    "generate_scene",
    "scene_specs",
    "seen_vocabulary",
    "with_command",
    "world_vocabulary",
]
