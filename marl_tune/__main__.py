"""`python -m marl_tune key=value ...`: compose the settings, check them, run the sweeps. `--help` lists the options."""

import sys

from marl_tune.config import help
from marl_tune.config.errors import ConfigError


def main(words: list[str] | None = None) -> int:
    """Runs the sweeps of a command line.

    Args:
        words: of the command line; None: those of this process.

    Returns:
        The exit code. 0: all trials finished. 1: some trials failed. 2: the settings are wrong (one line on stderr,
        nothing is written). 130: interrupted. Of several jobs (-m) the highest code.
    """
    words = sys.argv[1:] if words is None else words
    try:
        if help.is_asked(words):
            print(help.text())
            for line in help.problems():
                print(f"warning: {line}", file=sys.stderr)
            return 0
        # Hydra, Ray and torch are imported only when needed, so that help and a wrong setting answer at once.
        from marl_tune.config.compose import compose
        from marl_tune.validation.validate import validate

        sweeps = compose(words)
        for sweep in sweeps:
            validate(sweep)
        if not sweeps:  # Hydra has answered: --cfg job, --info, --hydra-help
            return 0
        from marl_tune.sweep.run import run

        worst = 0
        for sweep in sweeps:
            worst = max(worst, run(sweep, ["python", "-m", "marl_tune", *words]))
            if worst == 130:  # interrupted: the remaining jobs are not started
                break
        return worst
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before a run began
        return 130


if __name__ == "__main__":
    sys.exit(main())
