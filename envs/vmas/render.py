"""Draws one copy of a VMAS environment as an RGB array, with NumPy only. VMAS's own drawing needs OpenGL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from marl_tune.envs.drawing import blend_disc

if TYPE_CHECKING:
    from torch import Tensor
    from vmas.simulator.core import Shape  # type: ignore[import-untyped]
    from vmas.simulator.environment import Environment  # type: ignore[import-untyped]

OUTLINE = 1.5  # pixels around an agent
SHADE = 0.55  # brightness of the outline, as a share of the colour's
THIN = 1.25  # half of the thickness of a line, pixels
BORDER = (0.25, 0.25, 0.25)


def draw(env: "Environment", copy: int) -> np.ndarray:
    """The present state from above: discs, boxes and lines, and the walls around the world. Agents have a dark outline.

    The camera is that of VMAS. What a scenario draws in addition (`extra_render`) and the readings of sensors are not
    drawn.

    Args:
        env: VMAS's environment.
        copy: number of the copy.

    Returns:
        (height, width, 3) uint8 pixels, of the size that the scenario asks for.
    """
    scenario, world = env.scenario, env.world
    width, height = (int(side) for side in scenario.viewer_size)
    canvas = np.full((height, width, 3), 255.0, np.float32)
    origin = _numbers(scenario.render_origin)
    scale = width / 2 / _reach(env, copy, origin)  # pixels of a distance of 1

    def pixel(position: np.ndarray) -> np.ndarray:
        return np.array([width, height]) / 2 + scale * (position - origin) * (1.0, -1.0)

    if scenario.visualize_semidims and world.x_semidim is not None and world.y_semidim is not None:
        x, y = scale * float(world.x_semidim), scale * float(world.y_semidim)
        for side in ((0, y, x, THIN), (0, -y, x, THIN), (x, 0, THIN, y), (-x, 0, THIN, y)):
            _blend_box(canvas, pixel(np.zeros(2)) + side[:2], np.array(side[2:]), 0.0, _paint(BORDER))
    for entity in world.entities:
        if not bool(entity.is_rendering[copy]):
            continue
        colour = _numbers(entity.color)
        paint = _paint(colour[copy] if colour.ndim > 1 else colour)
        centre, angle = pixel(_numbers(entity.state.pos[copy])), float(entity.state.rot[copy])
        if entity in world.agents:
            _blend_shape(canvas, entity.shape, scale, 0.0, centre, angle, SHADE * paint)
            _blend_shape(canvas, entity.shape, scale, OUTLINE, centre, angle, paint)
        else:
            _blend_shape(canvas, entity.shape, scale, 0.0, centre, angle, paint)
    return np.rint(canvas).astype(np.uint8)


def _reach(env: "Environment", copy: int, origin: np.ndarray) -> float:
    """Distance from the middle of the picture to its right edge at which all agents are visible; as in VMAS's
    `Environment.render`."""
    zoom, (width, height) = float(env.scenario.viewer_zoom), env.scenario.viewer_size
    reach = zoom * np.array([max(width / height, 1.0), max(height / width, 1.0)])
    agents = env.world.agents
    margin = 2 * max(agent.shape.circumscribed_radius() for agent in agents)
    farthest = np.abs([_numbers(agent.state.pos[copy]) - origin for agent in agents]).max(axis=0) + margin
    return float(reach[0] * max((farthest / reach).max(), zoom))


def _blend_shape(
    canvas: np.ndarray, shape: "Shape", scale: float, inset: float, centre: np.ndarray, angle: float, paint: np.ndarray
) -> None:
    """Blends one of VMAS's shapes (Sphere, Box, Line) into the picture, smaller by `inset` pixels on each side."""
    kind = type(shape).__name__
    if kind == "Sphere":
        blend_disc(canvas, centre.tolist(), scale * shape.radius - inset, paint.tolist())
        return
    thickness = scale * shape.width / 2 if kind == "Box" else THIN + inset
    half = np.array([scale * shape.length / 2, thickness]) - inset
    _blend_box(canvas, centre, half, angle, paint)


def _blend_box(canvas: np.ndarray, centre: np.ndarray, half: np.ndarray, angle: float, paint: np.ndarray) -> None:
    """Blends a filled rectangle with smooth edges into the picture, in place.

    Args:
        canvas: (height, width, 3) floats.
        centre: column, row.
        half: half of its length and of its width, pixels.
        angle: between its length and the x axis, counter-clockwise, radians.
        paint: red, green, blue on the scale of the canvas.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    extent = abs(cos) * half + abs(sin) * half[::-1] + 1.0
    (left, top), (right, bottom) = (
        np.clip(np.floor(centre + sign * extent), 0, canvas.shape[1::-1]).astype(int) for sign in (-1, 1)
    )
    rows, columns = np.ogrid[top:bottom, left:right]
    x, y = columns + 0.5 - centre[0], centre[1] - rows - 0.5
    along, across = x * cos + y * sin, y * cos - x * sin
    inside = np.clip(half[0] - np.abs(along) + 0.5, 0.0, 1.0) * np.clip(half[1] - np.abs(across) + 0.5, 0.0, 1.0)
    patch = canvas[top:bottom, left:right]
    patch += (inside[..., None] * (paint - patch)).astype(np.float32)


def _numbers(values: "Sequence[float] | Tensor") -> np.ndarray:
    """A sequence or a tensor on any device, as float64."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float64)


def _paint(colour: Sequence[float] | np.ndarray) -> np.ndarray:
    return 255.0 * np.clip(np.asarray(colour, np.float64)[:3], 0.0, 1.0)
