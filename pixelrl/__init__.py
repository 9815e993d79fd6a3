"""pixelrl: the package under the book *Seeing Ahead*, small enough to be read from top to bottom.

Each module is one idea and imports only from those before it:
presets, envs, replay, prioritised, cuda, nets, dqn, augment, sac, saliency, scores, sgqn, agents, evaluate,
checkpoint, runs, cdna, footage, forecast, predictor, train, stats, viz, check, prepare.
"""

__version__ = "0.1.0"
