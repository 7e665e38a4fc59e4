"""Every method at once: what a tool needs to serve whichever one a configuration names."""

from __future__ import annotations

import amsam.config
import plug.config
import possam.config
from sam_common.config import CfgNode, get_cfg


def full_cfg() -> CfgNode:
    """The shared keys and those of every method."""
    cfg = get_cfg()
    possam.config.add_possam_config(cfg)
    plug.config.add_plug_config(cfg)
    amsam.config.add_amsam_config(cfg)
    return cfg


def register_all() -> None:
    """Enters every method in the table of meta-architectures; calling it again changes nothing."""
    possam.config.register()
    plug.config.register()
    amsam.config.register()
