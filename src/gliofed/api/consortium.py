"""A federation between hospitals: kits for everyone who takes part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.fed.trust.policy import DEFAULT_POLICY_TOML

if TYPE_CHECKING:  # NVIDIA FLARE is an extra
    from gliofed.consortium.provision import Provisioned


def provision(federation: Path, out: Path, policy_toml: str = DEFAULT_POLICY_TOML) -> Provisioned:
    """Make a start-up kit for the server, the lead and each site of a federation file.

    out: folder of the kits; where it holds the kits of the same federation, those of new sites
    are added. policy_toml: the policy that each site starts with. Raises StudyError where the
    federation file or its study cannot be used, KitError where `out` cannot. Needs the extra
    `gliofed[federation]`.
    """
    from gliofed.consortium.plan import load_plan
    from gliofed.consortium.provision import provision as make

    return make(load_plan(federation), out, policy_toml)
