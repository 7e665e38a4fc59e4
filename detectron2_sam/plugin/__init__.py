"""The project inside Detectron2: its models, backbone, head and data sets under Detectron2's names.

`detectron2_sam` has what its users call. Nothing else in this repository imports Detectron2.
"""

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "detectron2_sam.plugin needs Detectron2, which is not installed here; how to install it: docs/detectron2.md, "
        "https://detectron2.readthedocs.io/tutorials/install.html",
        name="detectron2",
    ) from None
