"""Butterfly's knights_archers_zombies, faster: it draws only when asked to, and reads each image from disk once.

PettingZoo's version draws the whole screen in each step. It reads a zombie's image from disk in each step, whether a
zombie appears or not. And it computes for each agent anew what is the same for all agents.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pygame
from pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies import raw_env
from pettingzoo.butterfly.knights_archers_zombies.src import constants, img, players, weapons, zombie

from marl_tune.envs.pettingzoo.api_types import Env
from marl_tune.envs.pettingzoo.fast import has_all

NEEDED = (
    *("get_vector_state", "reinit", "spawn_zombie", "action_weapon", "sword_hit", "arrow_hit", "zombie_hit_archer"),
    *("zombit_hit_knight", "use_typemasks", "typemask_width", "vector_width", "sequence_space", "dead_agents"),
)
ZOMBIE, ARCHER, KNIGHT, ARROW, SWORD, SELF = range(6)  # places in a type mask
ATTACKS = 5  # the action, by the world's own count


class ScreenSprite(Protocol):
    """What is used here of the world's sprites: agents, weapons and zombies."""

    rect: pygame.Rect
    direction: tuple[float, float]  # a unit vector; zombies have none


def accelerate(world: Env) -> None:
    """Makes an instance of `raw_env` fast.

    An instance that observes pictures, draws into a window, or has not all attributes `NEEDED` stays as it is.
    """
    drawn = not getattr(world, "vector_state", False) or world.render_mode == "human"
    if not drawn and type(world) is raw_env and has_all(world, NEEDED):
        world.__class__ = FastZombies
        world.screen = None


class FastZombies(raw_env):
    """The world with vector observations. It has a screen only while it renders, so that it draws at no other time."""

    render_mode: str | None
    screen: pygame.Surface | None
    _template: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # see `_common`; None: the world has moved since

    def reinit(self) -> None:
        """Starts an episode, and draws nothing."""
        mode, self.render_mode = self.render_mode, None
        try:
            with _images_kept():
                super().reinit()
        finally:
            self.render_mode = mode
        self.screen, self._template = None, None

    def step(self, action: int | None) -> None:
        """One agent's turn."""
        self._template = None
        super().step(action)

    def render(self) -> np.ndarray | None:
        """The picture, `(height, width, 3)` uint8, drawn now."""
        self.screen = pygame.Surface((constants.SCREEN_WIDTH, constants.SCREEN_HEIGHT))
        try:
            return super().render()
        finally:
            self.screen = None

    def action_weapon(self, action: int, agent: players.Player) -> None:
        """Draws a weapon if that is the action."""
        if action == ATTACKS:
            with _images_kept():
                super().action_weapon(action, agent)

    def spawn_zombie(self) -> None:
        """Adds a zombie when `spawn_rate` cycles have passed since the last one."""
        if self.zombie_spawn_rate + 1 >= self.spawn_rate:
            with _images_kept():
                super().spawn_zombie()
        elif len(self.zombie_list) < self.max_zombies:
            self.zombie_spawn_rate += 1

    def sword_hit(self) -> None:
        """Swords kill the zombies that they touch."""
        if _touch((sword for knight in self.knight_list for sword in knight.weapons), self.zombie_list):
            super().sword_hit()

    def arrow_hit(self) -> None:
        """Arrows kill the zombies that they touch."""
        arrows = (arrow for agent in self.agent_list if agent.is_archer for arrow in agent.weapons)
        if _touch(arrows, self.zombie_list):
            super().arrow_hit()

    def zombie_hit_archer(self) -> None:
        """Zombies kill the archers that they touch."""
        if _touch(self.archer_list, self.zombie_list):
            super().zombie_hit_archer()

    def zombit_hit_knight(self) -> None:
        """Zombies kill the knights that they touch."""
        if _touch(self.knight_list, self.zombie_list):
            super().zombit_hit_knight()

    def get_vector_state(self) -> np.ndarray:
        """All sprites, `(tracked, width)` float64: agents, swords, arrows, zombies; each kind is padded with rows of
        zeros.

        A row holds the type mask, if there is one, the position as shares of the screen, and the unit vector in which
        the sprite looks.
        """
        agents, gone = [self.agent_list[self.agent_name_mapping[name]] for name in self.possible_agents], [None]
        names = zip(self.possible_agents, agents, strict=True)
        rows = [None if name in self.dead_agents else self._row(_kind(agent), agent) for name, agent in names]
        swords = [self._row(SWORD, sword) for agent in self.agent_list if agent.is_knight for sword in agent.weapons]
        arrows = [self._row(ARROW, arrow) for agent in self.agent_list if agent.is_archer for arrow in agent.weapons]
        zombies = [self._row(ZOMBIE, each) for each in self.zombie_list]
        rows += swords + gone * (self.num_knights - len(swords))
        rows += arrows + gone * (self.max_arrows - len(arrows))
        rows += zombies + gone * (self.max_zombies - len(zombies))
        empty = (0.0,) * self.vector_width
        return np.array([empty if row is None else row for row in rows])

    def observe(self, agent: str) -> np.ndarray:
        """What an agent observes, `(1 + tracked, 1 + width)` float64: itself, then all sprites relative to its
        position.

        Between the type mask and the relative position, a row has the distance in diagonals of the screen. With
        `sequence_space`, rows of zeros are left out.
        """
        template, places, there = self._common()
        player = self.agent_list[self.agent_name_mapping[agent]]
        observation = template.copy()
        observation[0, -4:] = own = _place(player)
        relative = (places - own[:2]) * there  # (tracked, 2)
        squares = relative * relative
        observation[1:, -5] = np.sqrt(squares[:, 0] + squares[:, 1]) / np.sqrt(2)
        observation[1:, -4:-2] = relative
        return observation[~np.all(observation == 0, axis=-1)] if self.sequence_space else observation

    def _common(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the observations of all agents share.

        Returns:
            An observation without positions; the positions, `(tracked, 2)`; and 1.0 for rows of sprites, 0.0 for rows
            of padding, `(tracked, 1)`.
        """
        if self._template is None:
            state = self.get_vector_state()
            template = np.zeros((len(state) + 1, self.vector_width + 1))
            template[1:, :-5], template[1:, -2:] = state[:, :-4], state[:, -2:]
            if self.use_typemasks:
                template[0, SELF] = 1.0
            there = np.where(np.any(state[:, -4:], axis=1, keepdims=True), 1.0, 0.0)
            self._template = template, state[:, -4:-2], there
        return self._template

    def _row(self, kind: int, sprite: ScreenSprite) -> tuple[float, ...]:
        if not self.use_typemasks:
            return _place(sprite)
        return (*(float(place == kind) for place in range(self.typemask_width)), *_place(sprite))


def _place(sprite: ScreenSprite) -> tuple[float, ...]:
    """A sprite's position, as shares of the screen, and the unit vector in which it looks; zombies look down."""
    x, y = (0.0, 1.0) if isinstance(sprite, zombie.Zombie) else sprite.direction
    return sprite.rect.x / constants.SCREEN_WIDTH, sprite.rect.y / constants.SCREEN_HEIGHT, x, y


def _kind(agent: players.Player) -> int:
    return ARCHER if agent.is_archer else KNIGHT


def _touch(some: Iterable[ScreenSprite], others: Iterable[ScreenSprite]) -> bool:
    """Whether the rectangle of one of the first sprites overlaps the rectangle of one of the others."""
    rects = [sprite.rect for sprite in others]
    return bool(rects) and any(sprite.rect.collidelist(rects) >= 0 for sprite in some)


_kept = functools.cache(img.get_image)  # path -> image; sprites make new images from it and change none


@contextmanager
def _images_kept() -> Iterator[None]:
    """In this context, new sprites take an image that has been read before instead of reading the file again."""
    for module in (players, weapons, zombie):
        module.get_image = _kept
    try:
        yield
    finally:
        for module in (players, weapons, zombie):
            module.get_image = img.get_image
