"""What an installation holds: one package, marl_tune, with the folders beside it inside. No other name is taken."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = ("envs", "modules", "conf", "sweeps")

# An editable installation's marl_tune/__init__.py: puts the repository's package in its own place. A line in a .pth
# file would make every folder of the repository importable, and a finder would lengthen every start of Python.
STAND_IN = """
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("marl_tune", {0!r}, submodule_search_locations=[{1!r}])
sys.modules["marl_tune"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["marl_tune"])
"""


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before it writes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Says which file goes where; `version` is standard or editable."""
        package = Path(self.root) / "marl_tune"
        if version == "standard":
            build_data["force_include"] |= {str(package.with_name(name)): f"marl_tune/{name}" for name in INSIDE}
            build_data["force_include"] |= {str(package): "marl_tune"}
            return
        stand_in = Path(self.root) / "build" / "editable.py"
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(STAND_IN.format(str(package / "__init__.py"), str(package)), encoding="utf-8")
        build_data["force_include_editable"] |= {str(stand_in): "marl_tune/__init__.py"}
