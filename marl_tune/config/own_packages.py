"""Whether Python finds our own packages: their names are plain words that another package or folder may have too."""

import importlib.util
from pathlib import Path

from marl_tune.config.errors import ConfigError

PACKAGES = ("marl_tune", "envs", "modules", "conf")


def check_packages() -> None:
    """Refuse to run where one of our packages is found outside the folder of the others (PyPI has an `envs`, and a
    folder of that name with an __init__.py in the working directory comes first). Imports none of them."""
    homes = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        homes[package] = str(Path(spec.origin).parent.parent) if spec is not None and spec.origin else "nowhere"
    if len(set(homes.values())) > 1:
        places = ", ".join(f"{package} in {home}" for package, home in homes.items())
        raise ConfigError(
            f"the packages marl_tune, envs, modules and conf must lie in one folder, got {places}: "
            "uninstall the stranger, or run from another folder"
        )
