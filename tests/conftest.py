"""For every test."""

from __future__ import annotations

import torch

from pixelrl.envs.camera import choose_gl

torch.set_num_threads(1)  # small networks are faster on one, and many times so where other programs run
choose_gl()  # before a test imports mujoco or dm_control itself
