"""The floor under any one-process PPO: the world's steps, the policy's forward passes, and forward, backward and Adam.

    python -m benchmarks.reference.floor --work W2 --envs 50 [--world batched] [--json]

Nothing else is counted: no storage, no episodes, no advantages, no shuffling, no metrics. The world is stepped as
marl_tune steps it, with random actions; minibatches are made beforehand. Learning is measured with torch's default Adam
and with its fused one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.command import limit_threads, show, work_parser
from benchmarks.measure import clock, spread
from benchmarks.reference.hand_ppo import network
from benchmarks.reference.worlds import parallel_env
from benchmarks.works import WORKS, Work
from marl_tune import envs
from marl_tune.results.manifest import package_versions

DRAWS = 997  # random actions that are drawn beforehand and gone through in turn


def learning(work: Work, fused: bool) -> Callable[[], None]:
    """One iteration's gradient steps on random minibatches."""
    actor, critic = network(work, work.num_actions), network(work, 1)
    parameters = [*actor.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(parameters, lr=work.lr, fused=True if fused else None)
    batches = [_random_minibatch(work) for _ in range(work.agent_steps // work.minibatch_size)]
    low, high = 1 - work.clip_param, 1 + work.clip_param

    def learn() -> None:
        for _ in range(work.num_epochs):
            for observations, actions, log_probs, advantages, targets in batches:
                new = F.log_softmax(actor(observations), -1).gather(1, actions)[:, 0]
                ratio = (new - log_probs).exp()
                gain = torch.min(ratio * advantages, ratio.clamp(low, high) * advantages).mean()
                loss = 0.5 * F.mse_loss(critic(observations)[:, 0], targets) - gain
                adam.zero_grad()
                loss.backward()
                adam.step()

    return learn


def _random_minibatch(work: Work) -> tuple[Tensor, ...]:
    rows = work.minibatch_size
    actions = torch.randint(0, work.num_actions, (rows, 1))
    log_probs = torch.full((rows,), -float(np.log(work.num_actions)))
    return torch.randn(rows, work.observation_dim), actions, log_probs, torch.randn(rows), torch.randn(rows)


def deciding(work: Work, copies: int) -> Callable[[], None]:
    """One iteration's forward passes of actor and critic, one a step over all copies and agents, and its draws."""
    actor, critic = network(work, work.num_actions), network(work, 1)
    observations = torch.randn(copies * work.agents, work.observation_dim)

    @torch.inference_mode()
    def decide() -> None:
        for _ in range(work.fragment(copies)):
            logits = actor(observations)
            critic(observations)
            (logits - torch.empty_like(logits).exponential_().log()).argmax(-1).numpy()  # a draw from the softmax

    return decide


def stepping(work: Work, world: str, copies: int) -> Callable[[], None]:
    """One iteration's steps of the copies with random actions; episodes go on from one call to the next."""
    step = _step_pettingzoo(work, copies) if world == "pettingzoo" else _step_batched(work, world, copies)

    def run() -> None:
        for _ in range(work.fragment(copies)):
            next(step)

    return run


def _random_actions(work: Work, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, work.num_actions, (DRAWS, *shape))


def _step_batched(work: Work, choice: str, copies: int) -> Iterator[None]:
    world = envs.make_world(work.sweep(choice, copies).env, copies)
    drawn = {group.name: _random_actions(work, copies, len(group.agents)) for group in world.groups}
    world.reset(list(range(copies)))
    turn = 0
    while True:
        step = world.step({group: actions[turn % DRAWS] for group, actions in drawn.items()})
        done = np.flatnonzero(step.terminated | step.truncated)
        if len(done):
            world.reset(copies=done)
        turn += 1
        yield


def _step_pettingzoo(work: Work, copies: int) -> Iterator[None]:
    worlds = [parallel_env(work.name) for _ in range(copies)]
    agents = worlds[0].possible_agents
    drawn = [dict(zip(agents, row, strict=True)) for row in _random_actions(work, len(agents))]
    for seed, world in enumerate(worlds):
        world.reset(seed=seed)
    turn = 0
    while True:
        for world in worlds:
            world.step(drawn[turn % DRAWS])
            if not world.agents:
                world.reset()
            turn += 1
        yield


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each part, measured in turn, and the rates that they allow at best."""
    work = WORKS[arguments.work]
    world, copies = work.setting(arguments.world, arguments.envs)
    torch.manual_seed(0)
    parts = {
        "stepping": stepping(work, world, copies),
        "deciding": deciding(work, copies),
        "learning": learning(work, fused=False),
        "learning_fused": learning(work, fused=True),
    }
    turns = [_turn(parts) for _ in range(arguments.warmup + arguments.iterations)][arguments.warmup :]
    sampling = [turn["stepping"] + turn["deciding"] for turn in turns]
    rates = {"sampled_per_s": spread([work.agent_steps / seconds for seconds in sampling])}
    for name in ("learning", "learning_fused"):
        whole = [seconds + turn[name] for seconds, turn in zip(sampling, turns, strict=True)]
        rates[f"agent_steps_per_s{name.removeprefix('learning')}"] = spread([work.agent_steps / s for s in whole])
    seconds = {f"{name}_s": spread([turn[name] for turn in turns]) for name in parts}
    about = {"contestant": "floor", "work": work.name, "world": world, "envs": copies, "threads": arguments.threads}
    return about | rates | seconds | {"versions": package_versions()}


def _turn(parts: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each part, run once."""
    seconds = {}
    for name, part in parts.items():
        began = clock()
        part()
        seconds[name] = clock() - began
    return seconds


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with a message when the arguments do not go together."""
    parser = work_parser(__doc__, iterations=5, warmup=1)
    parser.add_argument("--world", choices=("pettingzoo", "batched"), help="how W1 is stepped (default: pettingzoo)")
    arguments = parser.parse_args(words)
    limit_threads(arguments.threads)
    try:
        measured = measure(arguments)
    except ValueError as error:
        parser.error(str(error))
    show(measured, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
