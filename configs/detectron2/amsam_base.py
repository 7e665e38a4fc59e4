"""What the LazyConfigs of AM-SAM share: configs/amsam_base.yaml with SAM ViT-B on photographs of people.

For building and evaluating (`--eval-only`): its training has two levels, unknown to Detectron2's LazyConfig tool.
"""

from detectron2.config import LazyCall as L

from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.lazy import FewShotEvaluator, FewShotMapper

train = dict(
    output_dir="./output/amsam_lazy",
    init_checkpoint="",
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    device="cuda",
)
model = L(lazy.amsam)(
    sam=L(lazy.sam)(size="B", weights="sam_vit_b"),
    num_classes=1,
    image_size=256,
    pixels=([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    select="top1",
)
dataloader = dict(
    test=L(lazy.test_loader)(name="human_segmentation_test", mapper=L(FewShotMapper)(training=False)),
    evaluator=L(FewShotEvaluator)(dataset_name="${..test.name}", output_dir="${...train.output_dir}/inference"),
)
optimizer = L(lazy.no_optimizer)(params=dict())
