"""The contracts that environments, modules and algorithms keep, as checks for your own tests; each raises an
AssertionError that says which rule is broken.

>>> from marl_tune.testing import check_algorithm, check_env, check_module
>>> check_env("my_world", max_steps=20)
>>> check_module("my_net")
>>> check_algorithm("my_algorithm")

The names are options of the command line, so the option's registration, dataclass and YAML file are checked with it.
torch and ray are imported by the checks that need them.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.core.learner.learner import Learner

    from marl_tune.config.schema.sweep import SweepConfig

Setting = bool | int | float | str | None | list[object] | dict[str, object]
Weights = dict[str, object]  # module id -> its state, tensors by name
Settings = TypeVar("Settings")

VECTOR, IMAGE = gym.spaces.Box(0.0, 1.0, (9,), np.float32), gym.spaces.Box(0, 255, (8, 7, 3), np.uint8)
DISCRETE, MULTI, BOX = gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([3, 2]), gym.spaces.Box(-1.0, 1.0, (2,))


def masked(space: gym.Space, size: int) -> gym.spaces.Dict:
    """Observations of a space with a mask over `size` actions."""
    return gym.spaces.Dict({"observation": space, "action_mask": gym.spaces.MultiBinary(size)})


SPACES: Mapping[str, tuple[gym.Space, gym.Space]] = {
    "vector-discrete": (VECTOR, DISCRETE),
    "vector-multidiscrete": (VECTOR, MULTI),
    "vector-box": (VECTOR, BOX),
    "image-discrete": (IMAGE, DISCRETE),
    "image-box": (IMAGE, BOX),
    "masked-discrete": (masked(VECTOR, 5), DISCRETE),
    "masked-multidiscrete": (masked(VECTOR, 5), MULTI),
    "masked-image": (masked(IMAGE, 5), DISCRETE),
}
# spaces of observations and actions that every module serves; but images, where it needs direction tokens

TINY = (
    *("env=ant_colony", "env.grid_size=[8,8]", "env.n_agents=4", "env.n_food_sources=2", "env.max_steps=20"),
    *("cluster.num_envs_per_env_runner=5", "algorithm.train_batch_size=400", "search=none", "logger=csv"),
)
# the world in which algorithms are checked: 400 agent-steps an iteration


def check_env(name: str, steps: int = 120, seed: int = 0, **settings: Setting) -> None:
    """Plays a registered environment at random and checks every rule of `marl_tune.envs.world.World`.

    Args:
        name: the option of `env`.
        steps: of each play. Should be enough for an episode to end, so make episodes short by `settings`.
        seed: of the worlds and of the actions.
        settings: fields of its dataclass; the others have the values of its YAML file.

    Raises:
        ContractError: at the first rule that does not hold.
    """
    from marl_tune import envs
    from marl_tune.envs.testing import check_world

    config = envs.default_config(name, **settings)
    check_world(lambda num_envs: envs.make_world(config, num_envs), steps, seed)


def check_module(name: str, **settings: Setting) -> None:
    """Builds a registered module, small, for all kinds of spaces and checks every rule of
    `marl_tune.modules.base.ActorCritic`.

    Args:
        name: the option of `module`.
        settings: fields of its dataclass; the others are small, or have the values of its YAML file.
    """
    from marl_tune.modules import module_class
    from marl_tune.modules.testing import CHECKS, build

    for label, (observation_space, action_space) in SPACES.items():
        if "image" in label and module_class(name).needs_tokens:
            continue
        for separate in (True, False):
            changes: dict[str, Any] = {"separate_critic": separate, **settings}
            for check in CHECKS:
                check(build(name, observation_space, action_space, False, **changes))


def check_algorithm(name: str, *words: str) -> None:
    """Trains a registered algorithm for a few updates in a tiny world, in this process.

    - An update lowers the loss of every module on the batch that it learned from.
    - A living learner that is given other settings then learns as one that was built with them, bit by bit.
    - A trial that is restored from a checkpoint goes on as the one that wrote it, bit by bit.

    Args:
        name: the option of `algorithm`.
        words: more words of the command line, such as sharing=shared_critic.
    """
    from marl_tune.config.compose import compose
    from marl_tune.validation.validate import validate

    (sweep,) = compose([*TINY, f"algorithm={name}", *words])
    if hasattr(sweep.algorithm, "minibatch_size"):
        (sweep,) = compose([*TINY, f"algorithm={name}", "algorithm.minibatch_size=200", *words])
    validate(sweep)
    check_loss_falls(sweep)
    check_live_settings(sweep)
    check_checkpoint(sweep)


def check_loss_falls(sweep: SweepConfig) -> None:
    """An update lowers the loss of every module on the batch that it learned from."""
    from ray.rllib.core.learner.training_data import TrainingData

    def losses_of_update() -> dict[str, float]:
        seen: dict[str, float] = {}

        def watched(module_id: str, *args: object) -> object:
            loss = whole_loss(module_id, *args)
            seen.setdefault(module_id, float(loss.detach()))
            return loss

        whole_loss = learner.module_loss
        learner.module_loss = watched
        try:
            learner.update(training_data=TrainingData(batch=copy.deepcopy(batch)), num_epochs=1)
        finally:
            del learner.module_loss
        return seen

    with _Built(sweep) as built:
        learner = built.learner
        batch = learner._make_batch_if_necessary(TrainingData(episodes=built.sample()))
        before, after = losses_of_update(), losses_of_update()
    assert before, "no module learned"
    for module_id, loss in before.items():
        assert after[module_id] < loss, f"an update took the loss of {module_id} from {loss} to {after[module_id]}"


def check_live_settings(sweep: SweepConfig) -> None:
    """A living learner that is given other settings learns as one that was built with them, bit by bit."""
    other = dataclasses.replace(sweep, algorithm=changed(sweep.algorithm))
    with _Built(sweep) as living, _Built(sweep) as unchanged, _Built(other) as fresh:
        episodes, start = living.sample(), living.weights()
        living.learner.apply_settings(fresh.algorithm.config)
        living_weights, old, new = (built.learned(episodes, start) for built in (living, unchanged, fresh))
    assert _equal(living_weights, new), "a living learner does not use all of its new settings as a new one does"
    assert not _equal(living_weights, old), "new settings make no difference"


def check_checkpoint(sweep: SweepConfig) -> None:
    """A trial that is restored from a checkpoint goes on as the one that wrote it, bit by bit."""
    from marl_tune.results.checkpoint_files import load_weights
    from marl_tune.sweep.in_process_trial import InProcess

    with tempfile.TemporaryDirectory(prefix="marl_tune_") as name:
        saved, one, other = Path(name, "saved"), Path(name, "one"), Path(name, "other")
        first = InProcess(sweep, "check_00000")
        first.train()
        first.save(str(saved))
        first.train()
        first.save(str(one))
        first.stop()
        second = InProcess(sweep, "check_00000")
        second.restore(str(saved))
        second.train()
        second.save(str(other))
        second.stop()
        before, after, again = (load_weights(folder) for folder in (saved, one, other))
    assert not _equal(before, after), "a second iteration taught it nothing"
    assert _equal(after, again), "a restored trial does not go on as the one that was saved"


def changed(settings: Settings) -> Settings:
    """Settings of an algorithm, each number of which is another that its dataclass allows; sizes and passes of a batch
    are left, as is what is changed only in the course of a trial."""
    left = ("train_batch_size", "minibatch_size", "num_epochs", "lr_end_factor", "entropy_end_factor")
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if field.name in left or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        for other in (value * 0.5, value * 0.9, value + 0.25):
            try:
                tried = dataclasses.replace(settings, **{field.name: type(value)(other)})  # type: ignore[type-var]
            except ValueError:
                continue
            if getattr(tried, field.name) != value:
                settings = tried
                break
    return settings


class _Built:
    """RLlib's Algorithm of a sweep, in this process, while it is entered."""

    def __init__(self, sweep: SweepConfig) -> None:
        from marl_tune.algorithms.rllib_config import algorithm_config
        from marl_tune.cluster import startup_patches

        with startup_patches.building(compiles=sweep.cluster.torch_compile):
            self.algorithm: Algorithm = algorithm_config(sweep).build_algo()

    def __enter__(self) -> _Built:
        return self

    def __exit__(self, *error: object) -> None:
        self.algorithm.stop()

    @property
    def learner(self) -> Learner:
        """The learner, which is in this process."""
        return self.algorithm.learner_group._learner

    def sample(self) -> list[object]:
        """The episodes of one iteration."""
        from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

        group, steps = self.algorithm.env_runner_group, self.algorithm.config.total_train_batch_size
        return synchronous_parallel_sample(worker_set=group, max_agent_steps=steps, _uses_new_env_runners=True)

    def weights(self) -> Weights:
        """The weights of all modules."""
        return copy.deepcopy(self.learner.module.get_state())

    def learned(self, episodes: list[object], start: Weights) -> Weights:
        """The weights after one update from `start` on."""
        import torch
        from ray.rllib.core.learner.training_data import TrainingData

        self.learner.module.set_state(copy.deepcopy(start))
        torch.manual_seed(0)
        np.random.seed(0)
        self.learner.update(training_data=TrainingData(episodes=copy.deepcopy(episodes)), num_epochs=1)
        return self.weights()


def _equal(one: object, other: object) -> bool:
    """Whether two states, nested dicts of arrays or tensors, are equal bit by bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return np.array_equal(np.asarray(one), np.asarray(other))
