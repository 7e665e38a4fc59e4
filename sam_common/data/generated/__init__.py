"""The generated world: a deterministic data set that any machine can make, in the official formats."""

from sam_common.data.generated.scene import Scene, Thing, generate_scene
from sam_common.data.generated.specs import generated_specs, prepare
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary

__all__ = ["Scene", "Thing", "generate_scene", "generated_specs", "prepare", "seen_vocabulary", "world_vocabulary"]
