"""Settings of the module. They stand apart from it so that a wrong setting is refused without importing torch."""

from dataclasses import dataclass

from marl_tune.modules.schemas import ModuleConfig


@dataclass
class ResidualConfig(ModuleConfig):
    """Settings of `residual`."""

    num_blocks: int
    # residual blocks behind the dense layers, at least 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_blocks < 1:
            raise ValueError(f"module.num_blocks must be at least 1, got {self.num_blocks}")
