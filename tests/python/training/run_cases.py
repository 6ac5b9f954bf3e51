"""What tests of whole runs share: pictures to train on, and the comparison of what runs leave."""

import numpy as np
import torch
from ghostsr_ext.imaging import imresize
from safetensors.torch import load_file


def smooth_picture(seed, rows, columns):
    coarse = np.random.default_rng(seed).integers(0, 256, (rows // 4, columns // 4, 3), np.uint8)
    return imresize(coarse, size=(rows, columns))


def assert_same_network(first, second):
    first, second = load_file(first), load_file(second)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
