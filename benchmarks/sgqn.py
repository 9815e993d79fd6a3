"""Seconds an SGQN update, and how many SAC updates it is worth, in float32 and in the fastest type.

    python benchmarks/sgqn.py [--layers 4 11] [--batch 128] [--size 84] [--threads 2]

Both agents have the same networks and the same batch; SAC is the plain one, without augmentation.
"""

from __future__ import annotations

import torch
from timing import seconds
from updates import LAYERS, common_options, random_batch, spaces

from pixelrl import presets
from pixelrl.nets import fastest_dtype
from pixelrl.sac import SAC
from pixelrl.sgqn import SGQN


def main() -> None:
    options = common_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    batch = random_batch(options.batch, options.size)
    print(f"{'':30}{'SAC, s':>9}{'SGQN, s':>9}{'multiple':>10}")
    for layers in options.layers:
        for dtype in dict.fromkeys((torch.float32, fastest_dtype("cpu"))):
            found = []
            for method, kind in (("sac", SAC), ("sgqn", SGQN)):
                agent = kind(presets.get(method, "full", strides=LAYERS[layers]), *spaces(options.size))
                agent.encoder.dtype = agent.target_encoder.dtype = dtype
                found.append(seconds(lambda agent=agent: agent.update(batch), options.repeats))
            label = f"{layers} layers, {str(dtype)[6:]}"
            print(f"{label:30}{found[0]:9.3f}{found[1]:9.3f}{found[1] / found[0]:10.2f}")


if __name__ == "__main__":
    main()
