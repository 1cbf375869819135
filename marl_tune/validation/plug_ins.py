"""The chosen options of plug-in packages can be imported."""

from marl_tune.config.registry import GROUPS, check_callbacks, check_loads
from marl_tune.config.schema.sweep import SweepConfig


def check_plug_ins(sweep: SweepConfig) -> None:
    """Refuse a sweep with a plug-in whose class cannot be imported, or with a callback that there is not.

    What `space` may choose is tried too. Nothing is imported for options of our own.
    """
    for group in GROUPS:
        for name in {getattr(sweep, group).name, *sweep.group_options.get(group, {})}:
            check_loads(group, name)
    check_callbacks(sweep.logger.callbacks)
