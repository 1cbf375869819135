"""The contract of worlds, as checks that you can run on your own: `check_world(lambda copies: MyWorld(config,
copies))`.

Use short episodes (a small `max_steps`), so that some of them end during the checks.
"""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from marl_tune.envs.agent_group import Actions, Observations
from marl_tune.envs.trees import Array, Tree, tree_map
from marl_tune.envs.world import STAYS, StateUnavailable, Step, World

MakeWorld = Callable[[int], World]  # num_envs -> world
Record = dict[str, Any]  # what went into a step and came out of it, by name; each array has B as its first axis
COPIES = 3
FRAME_STEPS = 3  # number of steps that are drawn; more would be slow


class ContractError(AssertionError):
    """A world breaks a rule of the contract; the message says which."""


def check_world(make: MakeWorld, steps: int = 120, seed: int = 0) -> None:
    """Plays worlds at random and checks every rule of `World`.

    Args:
        make: num_envs -> a new world.
        steps: number of steps of each play; at least one episode must end within them.
        seed: of the worlds and of the actions.

    Raises:
        ContractError: for the first rule that is broken.
    """
    world = make(COPIES)
    _check_groups(world, COPIES)
    records = play(world, steps, seed)
    _check_ends(records)
    _check_equal(records, play(world, steps, seed), "a reset with a seed does not start the same play again")
    _check_equal(records, play(make(COPIES), steps, seed), "two worlds with the same seeds and actions differ")
    for copy in range(COPIES):
        alone = _actions_of(records, copy)
        _check_equal(
            [_of_copy(record, copy) for record in records],
            play(make(1), steps, seed + copy, alone),
            f"copy {copy} of {COPIES} differs from a world of one copy with the same seed and actions",
        )
    _check_partial_reset(make, seed)
    _check_seed_per_copy(make)
    _check_state(make, records, seed)
    _check_render(make, records, seed)


def sample_actions(world: World, observations: Observations, rng: np.random.Generator) -> Actions:
    """Random legal actions: group -> `(B, N)` int64 or `(B, N, ...)`. They respect an `action_mask` in the
    observation."""
    actions = {}
    for group in world.groups:
        shape, space = (world.num_envs, len(group.agents)), group.action_space
        observed = observations[group.name]
        if isinstance(observed, dict) and "action_mask" in observed:
            mask = np.asarray(observed["action_mask"])
            actions[group.name] = np.where(mask > 0, rng.random(mask.shape), -1.0).argmax(axis=-1)
        elif isinstance(space, gym.spaces.Discrete):
            actions[group.name] = rng.integers(space.start, space.start + space.n, size=shape)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            actions[group.name] = rng.integers(space.start, space.start + space.nvec, size=shape + space.shape)
        elif isinstance(space, gym.spaces.Box):
            low, high = np.maximum(space.low, -10), np.minimum(space.high, 10)
            actions[group.name] = rng.uniform(low, high, size=shape + space.shape).astype(space.dtype)
        else:
            raise ContractError(f"action space of {group.name} is neither Discrete, MultiDiscrete nor Box: {space}")
    return actions


def play(world: World, steps: int, seed: int, actions: list[Actions] | None = None) -> list[Record]:
    """Plays a world, checks every array, and resets copies that are done.

    Args:
        world: the world; copy i is seeded with `seed + i`.
        steps: number of steps.
        seed: also that of the random actions.
        actions: the actions of each step; None: random ones.

    Returns:
        One record per step: copies of its inputs and outputs, in which each array has B as its first axis.
    """
    rng = np.random.default_rng(seed)
    observations = world.reset([seed + copy for copy in range(world.num_envs)])
    _check_observations(world, observations, world.acting)
    records, turns = [], _TurnChecks(world)
    for index in range(steps):
        chosen = sample_actions(world, observations, rng) if actions is None else actions[index]
        state = _checked_state(world, observations)
        before, kept = observations, pickle.dumps((observations, state))
        step = world.step(chosen)
        _require(pickle.dumps((before, state)) == kept, "step writes into observations that it returned before")
        _check_observations(world, step.observations, turns.counting(step))
        _check_step(world, step)
        turns.check(step)
        metrics = _checked_metrics(world)
        record = {"before": before, "state": state, "actions": chosen, "step": _results(world, step)}
        record |= {"metrics": metrics, "state_after": _checked_state(world, step.observations)}
        records.append(pickle.loads(pickle.dumps(record)))
        observations, done = step.observations, np.flatnonzero(step.terminated | step.truncated)
        if done.size:
            observations = world.reset(copies=done)
            _check_observations(world, observations, world.acting)
            turns.begin(done)
    return records


def _results(world: World, step: Step) -> Record:
    """The results of a step and, in a world where agents take turns, which agents act next."""
    if step.left is None:
        return {name: value for name, value in vars(step).items() if name != "left"}
    return vars(step) | {"acting": world.acting}


class _TurnChecks:
    """Checks `World.acting` and `Step.left` over the episodes of a world. Without effect if both are None."""

    def __init__(self, world: World):
        self.world = world
        if world.acting is not None:
            self.gone = {name: np.zeros_like(acting) for name, acting in world.acting.items()}
            self.begin(np.arange(world.num_envs))

    def begin(self, copies: np.ndarray) -> None:
        """Notes that new episodes begin in some copies."""
        if self.world.acting is None:
            return
        for gone in self.gone.values():
            gone[copies] = False
        _require(self._somebody_acts()[copies].all(), "nobody acts at the start of an episode")

    def _somebody_acts(self) -> np.ndarray:
        return np.any([acting.any(axis=1) for acting in (self.world.acting or {}).values()], axis=0)

    def counting(self, step: Step) -> dict[str, np.ndarray] | None:
        """Whose observations are valid after a step: of agents that act next, or whose episode ended with it."""
        if self.world.acting is None or step.left is None:
            return None
        return {name: acting | (step.left[name] != STAYS) for name, acting in self.world.acting.items()}

    def check(self, step: Step) -> None:
        """Checks one step."""
        acting, left = self.world.acting, step.left
        if acting is None or left is None:
            _require(acting is None and left is None, "acting and left must both be None, or neither")
            return
        done = step.terminated | step.truncated
        for name, gone in self.gone.items():
            _require(
                acting[name].dtype == np.bool_ and acting[name].shape == gone.shape, f"acting of {name}: (B, N) bool"
            )
            _require(left[name].dtype == np.int8 and left[name].shape == gone.shape, f"left of {name}: (B, N) int8")
            leaves = left[name] != STAYS
            _require(not (gone & leaves).any(), f"an agent of {name} left twice in an episode")
            gone |= leaves
            _require(not (gone & acting[name]).any(), f"an agent of {name} acts that has left")
            _require(not acting[name][done].any(), f"an agent of {name} acts in a copy that is done")
        _require((self._somebody_acts() | done).all(), "nobody acts in a copy that is not done")


def _require(holds: object, rule: str) -> None:
    if not holds:
        raise ContractError(rule)


def _check_groups(world: World, copies: int) -> None:
    _require(world.num_envs == copies, f"num_envs is {world.num_envs} in a world that was made with {copies}")
    _require(isinstance(world.groups, tuple) and world.groups, "groups must be a tuple with at least one AgentGroup")
    agents = [agent for group in world.groups for agent in group.agents]
    _require(len(set(agents)) == len(agents) > 0, "agent ids must be unique in the whole world")
    _require(len({group.name for group in world.groups}) == len(world.groups), "group names must be unique")
    for group in world.groups:
        tokens, shape = group.tokens, group.observation_space.shape
        if group.positions is not None:
            _require(shape is not None and len(shape) == 1, f"{group.name} has positions, but not a 1-D observation")
            _require(
                len(set(group.positions)) == len(group.positions) > 0 and set(group.positions) <= set(range(shape[0])),
                f"{group.name} has positions outside its observation, or one twice",
            )
        if tokens is None:
            continue
        _require(shape is not None and len(shape) == 1, f"{group.name} has tokens, but not a 1-D observation")
        _require(len(tokens.indices) == len(tokens.directions), f"{group.name} needs a direction for each token")
        _require(all(0 <= i < shape[0] for i in tokens.indices), f"{group.name} has tokens outside its observation")
        lengths = np.linalg.norm(np.array(tokens.directions), axis=-1)
        _require(np.allclose(lengths, 1.0), f"{group.name} has directions that are not unit vectors")


def _leaves(space: gym.Space, values: object, path: str) -> Iterator[tuple[str, gym.Space, Any]]:
    """(path, space, array) of an observation; of each key, if the space is a Dict."""
    if not isinstance(space, gym.spaces.Dict):
        yield path, space, values
        return
    if not isinstance(values, dict) or set(values) != set(space.keys()):
        raise ContractError(f"{path} must have the keys of its Dict")
    for key, part in space.items():
        yield from _leaves(part, values[key], f"{path}.{key}")


def _check_observations(world: World, observations: Observations, counting: dict[str, np.ndarray] | None) -> None:
    _require(set(observations) == {g.name for g in world.groups}, f"observations of the groups {sorted(observations)}")
    for group in world.groups:
        rows = (world.num_envs, len(group.agents))
        for path, space, array in _leaves(group.observation_space, observations[group.name], group.name):
            _require(isinstance(array, np.ndarray), f"observation of {path} must be an array, is {type(array)}")
            shape = rows + (space.shape or ())
            _require(array.shape == shape, f"observation of {path} has the shape {array.shape}, must be {shape}")
            _require(array.dtype == space.dtype, f"observation of {path} is {array.dtype}, its space {space.dtype}")
            seen = array.reshape(-1, *(space.shape or ())) if counting is None else array[counting[group.name]]
            inside = all(space.contains(row) for row in seen)
            _require(inside, f"observation of {path} is outside its space: {array.min()} to {array.max()}")


def _check_step(world: World, step: Step) -> None:
    for group in world.groups:
        rewards, shape = step.rewards[group.name], (world.num_envs, len(group.agents))
        _require(rewards.shape == shape, f"rewards of {group.name} have the shape {rewards.shape}, must be {shape}")
        _require(rewards.dtype == np.float32, f"rewards of {group.name} are {rewards.dtype}, must be float32")
        _require(np.isfinite(rewards).all(), f"rewards of {group.name} are not finite")
    for name, flags in (("terminated", step.terminated), ("truncated", step.truncated)):
        right = flags.shape == (world.num_envs,) and flags.dtype == np.bool_
        _require(right, f"{name} is {flags.shape} {flags.dtype}, must be ({world.num_envs},) bool")
    _require(not (step.terminated & step.truncated).any(), "a copy is both terminated and truncated")


def _checked_state(world: World, observations: Observations) -> Array:
    state, space = world.state(observations), world.state_space
    shape = (world.num_envs, *space.shape)
    _require(state.shape == shape, f"state has the shape {state.shape}, must be {shape}")
    _require(state.dtype == space.dtype, f"state is {state.dtype}, its space {space.dtype}")
    _require(all(space.contains(row) for row in state), f"state is outside its space: {state.min()} to {state.max()}")
    return state


def _checked_metrics(world: World) -> dict[str, np.ndarray]:
    copies = np.arange(world.num_envs)
    metrics = world.episode_metrics(copies)
    for name, values in metrics.items():
        _require(np.shape(values) == copies.shape, f"metric {name} has the shape {np.shape(values)}, needs (copies,)")
        _require(np.isfinite(values).all(), f"metric {name} is not finite")
        last = world.episode_metrics(copies[-1:])[name]
        _require(last[0] == values[-1], f"metric {name} of one copy differs from that of all")
    return metrics


def _check_ends(records: list[Record]) -> None:
    ended = np.sum([r["step"]["terminated"] | r["step"]["truncated"] for r in records])
    _require(ended > 0, f"no episode ended in {len(records)} steps: check a world with shorter episodes")
    _require(len({frozenset(r["metrics"]) for r in records}) == 1, "the names of the metrics change")


def _of_copy(record: Tree, copy: int) -> Tree:
    """The part of a record or of a tree of arrays that belongs to one copy."""
    return tree_map(lambda array: array[copy : copy + 1], record)


def _actions_of(records: list[Record], copy: int) -> list[Actions]:
    return [_of_copy(record["actions"], copy) for record in records]


def _same(a: object, b: object) -> bool:
    """Whether two trees of arrays are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        return set(a) == set(b) and all(_same(a[key], b[key]) for key in a)
    return np.array_equal(a, b)  # type: ignore[arg-type]


def _check_equal(a: list[Record], b: list[Record], rule: str) -> None:
    for index, (left, right) in enumerate(zip(a, b, strict=True)):
        for key in left:
            _require(_same(left[key], right[key]), f"{rule}: step {index}, {key}")


def _check_partial_reset(make: MakeWorld, seed: int) -> None:
    world = make(COPIES)
    play(world, 5, seed)
    kept = world.step(sample_actions(world, world.reset(list(range(COPIES))), np.random.default_rng(seed))).observations
    reset = world.reset([seed], np.array([1]))
    fresh = make(1).reset([seed])
    for copy in range(COPIES):
        left = _of_copy(reset, copy)
        rule = f"reset of copy 1 alone returns a wrong observation of copy {copy}"
        _require(_same(left, fresh if copy == 1 else _of_copy(kept, copy)), rule)


def _check_seed_per_copy(make: MakeWorld) -> None:
    together = make(COPIES).reset([7, 8, 9])
    turned = make(COPIES).reset([9, 8, 7])
    for copy in range(COPIES):
        same = _same(_of_copy(together, copy), _of_copy(turned, COPIES - 1 - copy))
        _require(same, "the first observation of a copy does not depend on its seed alone")


def _check_state(make: MakeWorld, records: list[Record], seed: int) -> None:
    half = len(records) // 2
    world = make(COPIES)
    play(world, half, seed, [record["actions"] for record in records[:half]])
    try:
        live = world.get_state()
    except StateUnavailable:
        return
    state = pickle.dumps(live)
    actions = [record["actions"] for record in records[half:]]
    expected = _go_on(world, actions)
    _require(pickle.dumps(live) == state, "get_state returns arrays that the world goes on writing")
    other = make(COPIES)
    other.reset([seed + 100 + copy for copy in range(COPIES)])
    for target in (other, world):
        target.set_state(pickle.loads(state))
        _check_equal(expected, _go_on(target, actions), "after set_state the play differs")


def _go_on(world: World, actions: list[Actions]) -> list[Record]:
    """Plays on without a reset at the start. Copies that are done are reset."""
    records = []
    for chosen in actions:
        step = world.step(chosen)
        record: Record = {"step": _results(world, step), "metrics": world.episode_metrics(np.arange(world.num_envs))}
        record["state"] = world.state(step.observations)
        records.append(pickle.loads(pickle.dumps(record)))
        done = np.flatnonzero(step.terminated | step.truncated)
        if done.size:
            records[-1]["reset"] = pickle.loads(pickle.dumps(world.reset(copies=done)))
    return records


def _check_render(make: MakeWorld, records: list[Record], seed: int) -> None:
    world, undrawn = make(COPIES), make(COPIES)
    for one in (world, undrawn):
        play(one, len(records) - FRAME_STEPS, seed, [record["actions"] for record in records])
    actions = [record["actions"] for record in records[-FRAME_STEPS:]]
    expected = _go_on(undrawn, actions)
    for index, chosen in enumerate(actions):
        for copy in range(COPIES):
            frame = world.render(copy)
            right = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            _require(right and frame.shape[2] == 3, "render must return (height, width, 3) uint8")
        _check_equal(expected[index : index + 1], _go_on(world, [chosen]), "render changes the world")
    for _ in range(2):  # a second call must do no harm
        world.close()
