"""Seconds an update of predictive SGQN as a multiple of SGQN's, by the share that is rolled forward and by predictor.

    python benchmarks/predictive.py [--shares 0.25 1] [--horizon 3] [--batch 128] [--size 84] [--threads 2]

Both agents have the same networks and the same batch. CDNA has half of the paper's width and has learned nothing,
which makes no difference to its speed. At the end, what acting costs, where nothing is predicted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from timing import seconds
from updates import LAYERS, common_options, random_batch, spaces

from pixelrl import presets
from pixelrl.foresight import CDNAPredictor
from pixelrl.predictive import PredictiveSGQN
from pixelrl.predictor import build_model
from pixelrl.replay import Batch
from pixelrl.sac import SAC
from pixelrl.sgqn import SGQN


def with_past(batch: Batch, context: int) -> Batch:
    """A batch of noise with a past of noise."""
    b, size = len(batch.action), batch.obs.shape[-1]
    past = torch.randint(0, 256, (b, context, 3, size, size), dtype=torch.uint8)
    return batch._replace(past_frames=past, past_actions=2 * torch.rand(b, context - 1, 1) - 1)


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 1.0])
    parser.add_argument("--horizon", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = presets.get("predictive-sgqn-copy", "full", horizon=options.horizon)
    batch = with_past(random_batch(options.batch, options.size), config.context)
    films = presets.get("cdna-84", "cpu", env_kwargs={"size": (options.size, options.size)})
    cdna = CDNAPredictor(build_model(films, 1))
    print(f"{options.size} x {options.size}, batch {options.batch}, N = {options.horizon}, {options.threads} threads")
    print(f"{'':34}{'s':>9}{'multiple':>10}")
    for layers in options.layers:
        strides = LAYERS[layers]
        agents = {"SGQN": SGQN(presets.get("sgqn", "full", strides=strides), *spaces(options.size))}
        for share in options.shares:
            for name in ("copy", "CDNA"):
                agent = PredictiveSGQN(replace(config, strides=strides, ahead_share=share), *spaces(options.size))
                agent.predictor = cdna if name == "CDNA" else agent.predictor
                agents[f"{name}, share {share}"] = agent
        base = None
        for name, agent in agents.items():
            spent = seconds(lambda agent=agent: agent.update(batch), options.repeats)
            base = base or spent
            print(f"{f'{layers} layers, {name}':34}{spent:9.3f}{spent / base:10.2f}")
    obs = batch.obs[:1].numpy().astype(np.uint8)
    for kind, method in ((SAC, "sac"), (SGQN, "sgqn"), (PredictiveSGQN, "predictive-sgqn-copy")):
        agent = kind(presets.get(method, "full"), *spaces(options.size))
        spent = seconds(lambda agent=agent: agent.act(obs, explore=False), 20 * options.repeats)
        print(f"acting, {kind.__name__:26}{1e3 * spent:9.2f} ms")


if __name__ == "__main__":
    main()
