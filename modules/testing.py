"""The contract of modules: checks for the modules here and for your own. A check that fails raises AssertionError.

>>> from marl_tune.modules.testing import CHECKS, build
>>> for check in CHECKS:
...     check(build("mlp", observation_space, action_space))
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache, partial
from typing import Any, TypeAlias

import gymnasium as gym
import torch
import yaml
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from marl_tune.modules import MODULES, config_class, module_class
from marl_tune.modules.base import ActorCritic, Batch, Settings
from marl_tune.modules.communication import TeamAPI
from marl_tune.modules.curiosity import IntrinsicRewardAPI
from marl_tune.modules.parts.actions import categories
from marl_tune.modules.parts.observations import FEATURES, MASK, Observation

B, T, N = 3, 5, 4  # rows, steps and agents of a team in the batches that the checks use
CLOSE = 1e-6  # tolerance: sums of float32 depend on their order
TensorTree: TypeAlias = Tensor | Mapping[str, "TensorTree"]

POSITIONS = [0, 1]
TOKENS = {"indices": [3, 4, 5, 6], "directions": [[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]}

SMALL: dict[str, Any] = {
    "hidden_dims": [16, 12],
    "activation": "tanh",
    "conv_filters": [[4, 3, 2]],
    "max_seq_len": T,
    "state_dim": 10,
    "num_layers": 2,
    "plastic_dim": 8,
    "attention_dim": 8,
    "num_heads": 2,
    "comm_channels": 2,
    "message_dim": 3,
    "comm_rounds": 2,
    "icm_feature_dim": 6,
    "icm_hidden_dims": [16],
    "head_dim": 10,
}
# values of settings in tests; settings that are not here have the values of conf/module/<name>.yaml


@cache
def _defaults(name: str) -> Settings:
    return yaml.safe_load(MODULES[name].values.read_text(encoding="utf-8"))


def settings_of(name: str, **changes: object) -> Settings:
    """The model config of a small module, with all facts of a world that modules use.

    Args:
        name: of the module.
        changes: other values of settings, or of `tokens`, `positions` and `team_size`.
    """
    schema, values = config_class(name), _defaults(name) | SMALL | changes
    world = {"tokens": TOKENS, "positions": POSITIONS, "team_size": N}
    world |= {key: value for key, value in changes.items() if key in world}
    return asdict(schema(**{f.name: values[f.name] for f in fields(schema)})) | world


def build(
    name: str, observation_space: gym.Space, action_space: gym.Space, inference_only: bool = False, **changes: object
) -> ActorCritic:
    """Builds a small module as RLlib does. The weights are the same each time."""
    torch.manual_seed(0)
    return RLModuleSpec(
        module_class=module_class(name),
        observation_space=observation_space,
        action_space=action_space,
        inference_only=inference_only,
        model_config=settings_of(name, **changes),
    ).build()


# -- batches ----------------------------------------------------------------------------------------------------------


def observations(module: ActorCritic, lead: tuple[int, ...], seed: int = 1) -> Observation:
    """Random observations (*lead, ...) of the module's space. A mask allows at least one choice of each component."""
    generator = torch.Generator().manual_seed(seed)
    space = module.observation_space
    if not isinstance(space, gym.spaces.Dict):
        return _random_box(space, lead, generator)
    parts = [torch.randint(0, 2, (*lead, n), generator=generator) for n in categories(module.action_space)]
    for part in parts:
        part[..., 0] |= part.sum(-1) == 0
    mask = torch.cat(parts, -1).to(torch.int8)
    return {FEATURES: _random_box(space[FEATURES], lead, generator), MASK: mask}


def _random_box(space: gym.spaces.Box, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if space.dtype.kind == "u":
        return torch.randint(0, 256, (*lead, *space.shape), generator=generator, dtype=torch.uint8)
    return torch.rand(*lead, *space.shape, generator=generator)


def lead_of(module: ActorCritic) -> tuple[int, ...]:
    """The leading axes of the module's batches: rows (B,), sequences (B, T) or teams (B, N)."""
    if isinstance(module, TeamAPI):
        return (B, N)
    return (B, T) if module.is_stateful() else (B,)


def batch_of(module: ActorCritic, seed: int = 1) -> Batch:
    """Observations (B, ...) or (B, N, ...), or (B, T, ...) with a random state for a stateful module."""
    if not module.is_stateful():
        return {Columns.OBS: observations(module, lead_of(module), seed)}
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: 0.3 * torch.randn(B, *initial.shape, generator=generator)
        for name, initial in module.get_initial_state().items()
    }
    return {Columns.OBS: observations(module, (B, T), seed), Columns.STATE_IN: state}


def drawn_batch(module: ActorCritic, seed: int = 1) -> Batch:
    """A batch with what exploration drew in addition to actions. A module that gets it does not draw again."""
    batch = batch_of(module, seed)
    if not isinstance(module, TeamAPI):
        return batch
    out = module.forward_exploration(batch)
    return batch | {name: out[name] for name in module.drawn_columns}


def tree(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Applies a function to a tensor, or to each tensor of a dict."""
    return {k: tree(function, v) for k, v in value.items()} if isinstance(value, dict) else function(value)


def rows_of(module: ActorCritic, batch: Batch) -> Batch:
    """The observations of a batch as rows (R, ...)."""
    return tree(lambda a: a.flatten(0, 1), batch[Columns.OBS]) if module.is_stateful() else batch[Columns.OBS]


def steps_of(module: ActorCritic, batch: Batch, forward: Callable[[Batch], Batch]) -> Iterator[Batch]:
    """The outputs of `forward` step by step; the state after one step is the input of the next."""
    state = batch[Columns.STATE_IN]
    for t in range(T):
        obs = tree(partial(torch.narrow, dim=1, start=t, length=1), batch[Columns.OBS])
        out = forward({Columns.OBS: obs, Columns.STATE_IN: state})
        state = out[Columns.STATE_OUT]
        yield out


def same(a: TensorTree, b: TensorTree, tolerance: float = CLOSE) -> bool:
    """Whether tensors, or dicts of them, are equal up to rounding."""
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        assert isinstance(a, Mapping)
        assert isinstance(b, Mapping)
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance) for key in a)
    return a.shape == b.shape and torch.allclose(a, b, atol=tolerance, rtol=tolerance)


# -- the contract -----------------------------------------------------------------------------------------------------


def check_shapes(module: ActorCritic) -> None:
    """Outputs of every forward pass have the batch's axes, and the inputs that the distribution needs."""
    batch, lead = batch_of(module), lead_of(module)
    for forward in (module.forward_inference, module.forward_exploration, module.forward_train):
        out = forward(batch)
        inputs = out[Columns.ACTION_DIST_INPUTS]
        assert inputs.shape[:-1] == lead
        actions = _actions(module, out)
        assert actions.shape == (*lead, *module.action_space.shape)
        assert (Columns.STATE_OUT in out) == module.is_stateful()
        if module.is_stateful():
            expected = {name: (B, *part.shape) for name, part in module.get_initial_state().items()}
            assert {name: tuple(part.shape) for name, part in out[Columns.STATE_OUT].items()} == expected
        drawn = module.drawn_columns if isinstance(module, TeamAPI) else ()
        assert all(out[name].shape[:-1] == lead for name in drawn if forward == module.forward_exploration)
    assert all(not part.any() for part in module.get_initial_state().values())
    assert module.compute_values(batch).shape == lead


def _actions(module: ActorCritic, out: Batch) -> Tensor:
    """The actions of exploration: those that the module chose, else actions drawn from the distribution."""
    if Columns.ACTIONS in out:
        return out[Columns.ACTIONS].detach()
    return module.get_exploration_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS]).sample()


def check_embeddings(module: ActorCritic) -> None:
    """Values from the embeddings of the training pass are the values of the batch."""
    batch = batch_of(module)
    embeddings = module.forward_train(batch)[Columns.EMBEDDINGS]
    assert same(module.compute_values(batch, embeddings), module.compute_values(batch))


def check_gradients(module: ActorCritic) -> None:
    """The policy's, the value's, the entropy's and the module's own loss together reach every parameter."""
    batch = batch_of(module)
    actions = _actions(module, module.forward_exploration(batch))
    out = module.forward_train(batch | {Columns.ACTIONS: actions})
    dist = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
    values = module.compute_values(batch, out[Columns.EMBEDDINGS])
    loss = (dist.logp(actions) * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum()
    loss = loss + values.square().sum() - 0.1 * dist.entropy().sum()
    if isinstance(module, IntrinsicRewardAPI):
        rows = rows_of(module, batch)
        actions = actions.flatten(0, 1) if module.is_stateful() else actions
        loss = loss + module.curiosity_loss(rows, actions, tree(lambda a: a.roll(1, 0), rows))[0]
    module.zero_grad()
    loss.backward()
    missed = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missed, f"no gradient reaches {missed}"
    assert all(p.grad.isfinite().all() for p in module.parameters())


def check_ratio(module: ActorCritic) -> None:
    """PPO's probability ratio is 1 before the first update: training repeats what exploration did."""
    batch = drawn_batch(module)
    dist_class = module.get_exploration_action_dist_cls()
    if module.is_stateful():
        outs = list(steps_of(module, batch, module.forward_exploration))
        acted = {Columns.ACTION_DIST_INPUTS: torch.cat([out[Columns.ACTION_DIST_INPUTS] for out in outs], 1)}
        last = outs[-1][Columns.STATE_OUT]
    else:
        acted, last = module.forward_exploration(batch), None
    inputs, actions = acted[Columns.ACTION_DIST_INPUTS], _actions(module, acted)
    old = dist_class.from_logits(inputs)
    out = module.forward_train(batch | {Columns.ACTIONS: actions})
    new = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
    ratio = torch.exp(new.logp(actions) - old.logp(actions))
    assert same(ratio, torch.ones_like(ratio), 2 * CLOSE), f"the ratio is {ratio}"
    assert same(out[Columns.ACTION_DIST_INPUTS], inputs)
    assert last is None or same(out[Columns.STATE_OUT], last)
    assert same(new.kl(old), torch.zeros_like(ratio), 2 * CLOSE)


def check_rows_apart(module: ActorCritic) -> None:
    """A row does not depend on other rows: each agent has its own state, and messages stay within a team."""
    batch = drawn_batch(module)
    batch[Columns.ACTIONS] = _actions(module, module.forward_exploration(batch))
    for forward in (module.forward_inference, module.forward_train):
        alone = forward(tree(lambda a: a[:1], batch))
        together = forward(batch)
        assert same(alone[Columns.ACTION_DIST_INPUTS], together[Columns.ACTION_DIST_INPUTS][:1])
        if module.is_stateful():
            assert same(alone[Columns.STATE_OUT], tree(lambda a: a[:1], together[Columns.STATE_OUT]))
    assert same(module.compute_values(tree(lambda a: a[:1], batch)), module.compute_values(batch)[:1])


def check_padding(module: ActorCritic) -> None:
    """Steps of zeros at the end of a sequence do not change earlier steps, and give finite numbers."""
    if not module.is_stateful():
        return
    batch, kept = batch_of(module), T - 2
    padded = {
        Columns.OBS: tree(lambda a: torch.cat([a[:, :kept], torch.zeros_like(a[:, kept:])], 1), batch[Columns.OBS]),
        Columns.STATE_IN: batch[Columns.STATE_IN],
    }
    for key in (Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS):
        full, cut = module.forward_train(batch)[key], module.forward_train(padded)[key]
        assert same(full[:, :kept], cut[:, :kept])
        assert cut.isfinite().all()
    assert same(module.compute_values(batch)[:, :kept], module.compute_values(padded)[:, :kept])


def check_teams(module: ActorCritic) -> None:
    """The order of agents in a team does not matter, and each hears all others: gradients of its loss reach them."""
    if not isinstance(module, TeamAPI):
        return
    batch, order = drawn_batch(module), torch.arange(N - 1, -1, -1)
    turned = tree(lambda a: a[:, order], batch)
    for key in (Columns.ACTION_DIST_INPUTS, Columns.EMBEDDINGS):
        out = module.forward_train(batch)[key][:, order]
        assert same(out, module.forward_train(turned)[key]), "the order of the agents matters"
    assert same(module.compute_values(batch)[:, order], module.compute_values(turned))
    said = torch.zeros(B, N, module.encoder.out_dim, requires_grad=True)
    hook = module.encoder.register_forward_hook(lambda *result: result[-1] + said)
    (gradient,) = torch.autograd.grad(module.forward_train(batch)[Columns.ACTION_DIST_INPUTS][:, 0].sum(), said)
    hook.remove()
    assert gradient.abs().sum((0, 2)).all(), "an agent does not hear the others, or they do not learn from it"


def check_masks(module: ActorCritic) -> None:
    """Forbidden actions are never drawn. The entropy and its gradient are finite."""
    if not isinstance(module.observation_space, gym.spaces.Dict):
        return
    batch = batch_of(module)
    inputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    dist = module.get_train_action_dist_cls().from_logits(inputs)
    sizes = categories(module.action_space)
    for _ in range(200):
        actions = dist.sample()
        columns = actions.unsqueeze(-1) if len(sizes) == 1 else actions
        for allowed, chosen in zip(batch[Columns.OBS][MASK].split(sizes, -1), columns.unbind(-1), strict=True):
            assert allowed.gather(-1, chosen.unsqueeze(-1)).all(), "a forbidden action was drawn"
    (gradient,) = torch.autograd.grad(dist.entropy().sum(), inputs)
    assert dist.entropy().isfinite().all()
    assert gradient.isfinite().all()


def check_greedy(module: ActorCritic) -> None:
    """Inference chooses the mode of the distribution from which exploration draws."""
    batch = batch_of(module)
    if isinstance(module, TeamAPI):
        batch |= {name: torch.zeros_like(value) for name, value in drawn_batch(module).items() if name not in batch}
    out = module.forward_inference(batch)
    greedy = module.get_inference_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS]).to_deterministic()
    if Columns.ACTIONS in out:  # its components are the modes, each given those before it
        actions, inputs = out[Columns.ACTIONS], out[Columns.ACTION_DIST_INPUTS]
    else:
        actions, inputs = greedy.sample(), module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS]
    if isinstance(module.action_space, gym.spaces.Box):
        assert same(actions, inputs.chunk(2, -1)[0])
        return
    modes = torch.stack([part.argmax(-1) for part in inputs.split(categories(module.action_space), -1)], -1)
    assert torch.equal(actions, modes.view_as(actions))


def check_save_and_load(module: ActorCritic) -> None:
    """A new module with the saved state acts and values as the old one; so does the part of it that only acts."""
    batch = drawn_batch(module)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)  # no new module has these weights
    arguments: dict[str, Any] = module.get_ctor_args_and_kwargs()[1]
    twin = type(module)(**arguments)
    twin.set_state(module.get_state())
    acting = type(module)(**(arguments | {"inference_only": True}))
    acting.set_state(module.get_state(inference_only=True))
    key = Columns.ACTION_DIST_INPUTS
    assert same(dict(twin.state_dict()), dict(module.state_dict()), 0.0)
    assert same(twin.compute_values(batch), module.compute_values(batch), 0.0)
    for other in (twin, acting):
        assert same(other.forward_inference(batch)[key], module.forward_inference(batch)[key], 0.0)
        assert same(other.get_initial_state(), module.get_initial_state(), 0.0)
    assert set(acting.state_dict()) == set(module.get_state(inference_only=True)) < set(module.state_dict())


def check_one_device(module: ActorCritic) -> None:
    """All tensors are made on the device of the weights."""
    batch = batch_of(module)
    elsewhere = type(module)(**module.get_ctor_args_and_kwargs()[1]).to("meta")
    batch = tree(lambda a: a.to("meta"), batch)
    out = elsewhere.forward_train(batch)
    assert out[Columns.ACTION_DIST_INPUTS].device.type == "meta"
    assert elsewhere.compute_values(batch).device.type == "meta"


CHECKS: tuple[Callable[[ActorCritic], None], ...] = (
    check_shapes,
    check_embeddings,
    check_gradients,
    check_ratio,
    check_rows_apart,
    check_padding,
    check_teams,
    check_masks,
    check_greedy,
    check_save_and_load,
    check_one_device,
)
