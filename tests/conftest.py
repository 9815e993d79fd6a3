"""For every test."""

from __future__ import annotations

import torch

torch.set_num_threads(1)  # small networks are faster on one, and many times so where other programs run
