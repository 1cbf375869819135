"""PPO as a researcher writes it by hand: one file, PyTorch, some PettingZoo environments in turn, shared networks.

python -m benchmarks.reference.hand_ppo --work W2 --envs 8 [--json]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.command import limit_threads, show, work_parser
from benchmarks.measure import Iteration, clock, result
from benchmarks.memory_meter import MemoryMeter
from benchmarks.reference.worlds import parallel_env
from benchmarks.works import WORKS, Work


def network(work: Work, outputs: int) -> nn.Sequential:
    """Tanh layers of the work's widths and a linear one."""
    widths, layers = (work.observation_dim, *work.hidden_dims), []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class HandWrittenPpo:
    """Actor, critic, Adam, and `envs` environments that are stepped in turn.

    Shapes: T steps of E environments with A agents each make rows of E x A.
    """

    def __init__(self, work: Work, envs: int, seed: int = 0):
        torch.manual_seed(seed)
        self.work, self.steps = work, work.fragment(envs)
        self.actor, self.critic = network(work, work.num_actions), network(work, 1)
        self.optimizer = torch.optim.Adam([*self.actor.parameters(), *self.critic.parameters()], lr=work.lr)
        self.envs = [parallel_env(work.name) for _ in range(envs)]
        self.agents = self.envs[0].possible_agents
        first = [self._stack(env.reset(seed=seed + i)[0]) for i, env in enumerate(self.envs)]
        self.seen = np.array(first, np.float32)  # (E, A, D)

    def _stack(self, by_agent: dict) -> list:
        return [by_agent[agent] for agent in self.agents]

    def _values(self, observations: np.ndarray) -> Tensor:
        rows = torch.from_numpy(observations.reshape(-1, self.work.observation_dim))
        return self.critic(rows).squeeze(-1)

    @torch.no_grad()
    def rollout(self) -> tuple[Tensor, ...]:
        """Observations (T, E x A, D); actions, their log probabilities, values, rewards and ends (T, E x A); and the
        values after the last step (E x A)."""
        shape = (self.steps, *self.seen.shape[:2])  # (T, E, A)
        observations = np.empty((*shape, self.work.observation_dim), np.float32)
        rewards, ends = np.empty(shape, np.float32), np.zeros(shape, np.float32)
        decided = []
        for t in range(self.steps):
            observations[t] = self.seen
            policy = Categorical(logits=self.actor(torch.from_numpy(self.seen.reshape(-1, self.work.observation_dim))))
            actions = policy.sample()
            decided.append((actions, policy.log_prob(actions), self._values(self.seen)))
            self._step_envs(actions.numpy().reshape(shape[1:]), rewards[t], ends[t])
        actions, log_probs, values = (torch.stack(column) for column in zip(*decided, strict=True))
        flat = [torch.from_numpy(array.reshape(self.steps, -1)) for array in (rewards, ends)]
        rows = torch.from_numpy(observations.reshape(self.steps, -1, self.work.observation_dim))
        return rows, actions, log_probs, values, *flat, self._values(self.seen)

    def _step_envs(self, actions: np.ndarray, rewards: np.ndarray, ends: np.ndarray) -> None:
        """Steps every environment with its actions (E, A) and writes rewards and ends (E, A) of the step."""
        seen = np.empty_like(self.seen)
        for i, env in enumerate(self.envs):
            observation, reward, terminated, truncated, _ = env.step(dict(zip(self.agents, actions[i], strict=True)))
            rewards[i] = self._stack(reward)
            if any(terminated.values()) or any(truncated.values()):
                ends[i] = 1.0
                if not any(terminated.values()):  # cut by the time limit: what would have followed counts
                    after = self._values(np.array(self._stack(observation), np.float32))
                    rewards[i] += self.work.gamma * after.numpy()
                observation, _ = env.reset()
            seen[i] = self._stack(observation)
        self.seen = seen

    def advantages(self, values: Tensor, rewards: Tensor, ends: Tensor, after: Tensor) -> Tensor:
        """Generalised advantage estimates (T, E x A), https://arxiv.org/abs/1506.02438."""
        gamma, lambda_ = self.work.gamma, self.work.lambda_
        advantages, running = torch.empty_like(rewards), torch.zeros_like(after)
        for t in reversed(range(self.steps)):
            following = after if t == self.steps - 1 else values[t + 1]
            delta = rewards[t] + gamma * following * (1 - ends[t]) - values[t]
            running = delta + gamma * lambda_ * (1 - ends[t]) * running
            advantages[t] = running
        return advantages

    def learn(
        self,
        observations: Tensor,
        actions: Tensor,
        log_probs: Tensor,
        values: Tensor,
        rewards: Tensor,
        ends: Tensor,
        after: Tensor,
    ) -> int:
        """Updates the networks from a rollout; returns the gradient steps taken."""
        advantages = self.advantages(values, rewards, ends, after)
        targets = (advantages + values).reshape(-1)
        advantages, actions, log_probs = advantages.reshape(-1), actions.reshape(-1), log_probs.reshape(-1)
        rows, clip, taken = observations.reshape(-1, self.work.observation_dim), self.work.clip_param, 0
        for _ in range(self.work.num_epochs):
            for batch in torch.randperm(len(rows)).split(self.work.minibatch_size):
                advantage = advantages[batch]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                ratio = (Categorical(logits=self.actor(rows[batch])).log_prob(actions[batch]) - log_probs[batch]).exp()
                gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
                error = (self.critic(rows[batch]).squeeze(-1) - targets[batch]).pow(2).mean()
                self.optimizer.zero_grad()
                (0.5 * error - gain).backward()
                self.optimizer.step()
                taken += 1
        return taken

    def iterate(self) -> Iteration:
        """One rollout and what is learned from it."""
        began = clock()
        batch = self.rollout()
        sampled = clock()
        taken = self.learn(*batch)
        ended = clock()
        return Iteration(ended - began, sampled - began, ended - sampled, self.work.agent_steps, taken)


def main(words: Sequence[str] | None = None) -> int:
    """Prints the figures under the names of `benchmarks.throughput`."""
    parser = work_parser(__doc__, iterations=5, warmup=1)
    arguments = parser.parse_args(words)
    work, envs = WORKS[arguments.work], arguments.envs or 8
    limit_threads(arguments.threads)
    with MemoryMeter() as meter:
        try:
            ppo = HandWrittenPpo(work, envs)
        except ValueError as error:
            parser.error(str(error))
        iterations = [ppo.iterate() for _ in range(arguments.warmup + arguments.iterations)]
    choices = {"envs": envs, "threads": arguments.threads}
    measured = result("hand-written", work, choices, iterations[arguments.warmup :], meter.peak)
    show(measured, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
