"""Rules of self-play and leagues."""

from marl_tune.config.errors import invalid
from marl_tune.config.schema.self_play import LeagueConfig, VersusConfig
from marl_tune.config.schema.sweep import SweepConfig
from marl_tune.modules.schemas import SharedEncoderConfig
from marl_tune.results.metrics import ELO
from marl_tune.sharing.game_sides import learners_of, sides_of
from marl_tune.sharing.world_facts import world_facts


def check_self_play(sweep: SweepConfig) -> None:
    """Refuses a metric that the trial does not measure, and settings or a world that self-play cannot use."""
    sharing, metric = sweep.sharing, sweep.search.metric
    if not isinstance(sharing, VersusConfig):
        if metric.startswith("self_play/"):
            rule = "be something else where nobody plays against copies: set sharing=self_play or league"
            raise invalid("search.metric", rule, metric)
        return
    if "return" in metric:
        rule = f"be {ELO} under sharing={sharing.name}: what one side wins the other loses, so returns rank nobody"
        raise invalid("search.metric", rule, metric)
    if sweep.cluster.rollout == "rllib":
        rule = f"be batched under sharing={sharing.name}, which draws the players of every episode"
        raise invalid("cluster.rollout", rule, sweep.cluster.rollout)
    if isinstance(sweep.module, SharedEncoderConfig):
        rule = f"be one without a shared encoder under sharing={sharing.name}: a frozen copy keeps weights of its own"
        raise invalid("module", rule, sweep.module.name)
    for key in sweep.space:
        if key == "env" or key.startswith("env."):
            rule = f"be left out under sharing={sharing.name}: policies of different worlds cannot play each other"
            raise invalid(f"space.{key}", rule, sweep.space[key])
    sides = sides_of(world_facts(sweep).groups, sharing)
    if isinstance(sharing, LeagueConfig):
        turns, copies = len(sides) * len(learners_of(sharing)), sweep.cluster.num_envs_per_env_runner
        if copies < turns:
            rule = f"be at least {turns}, {len(sides)} sides x {len(learners_of(sharing))} learners: all train at once"
            raise invalid("cluster.num_envs_per_env_runner", rule, copies)
