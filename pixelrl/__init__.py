"""pixelrl: the package under the book *Seeing Ahead*, small enough to be read from top to bottom.

Each module is one idea and imports only from those before it:
prepare, configs, presets, envs, checkpoint, journal, runs, replay, prioritised, cuda, nets, dqn, dyna, augment, sac,
saliency, scores, sgqn, fitting, actor_critic, dynamics, i2a, cdna, footage, forecast, predictor, foresight,
predictive, agents, evaluate, parallel, train, stats, experiments, viz, check.
"""

__version__ = "0.1.0"
