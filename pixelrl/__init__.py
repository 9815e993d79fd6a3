"""pixelrl: the package under the book *Seeing Ahead*, small enough to be read from top to bottom.

Each module is one idea and imports only from those before it:
presets, envs, replay, nets, dqn, augment, sac, evaluate, runs, stats, train, viz, check.
"""

__version__ = "0.1.0"
