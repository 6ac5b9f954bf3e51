"""Layers that the CPU's fused paths compute, and some that they leave to torch."""

from ghost_layer_cases import ACTIVATIONS, EVERYTHING

WINOGRAD_WIDE = {"in_channels": 16, "intrinsic": 8, "ghosts": 8, "size": (12, 12)}
WINOGRAD_LAYERS = {
    "plain": WINOGRAD_WIDE,
    "relu": {**WINOGRAD_WIDE, "activation": "relu"},
    "gain and ghost bias": {**WINOGRAD_WIDE, "affine": True},
    "order": {**WINOGRAD_WIDE, "ordered": True},
    "residual": {**WINOGRAD_WIDE, "residual": True},
    "scaled residual and relu": {
        **WINOGRAD_WIDE,
        "residual": True,
        "residual_scale": -0.3,
        "activation": "relu",
    },
    "everything": {**WINOGRAD_WIDE, **EVERYTHING},
    "no ghosts": {**EVERYTHING, "in_channels": 16, "intrinsic": 24, "ghosts": 0, "size": (9, 13)},
    "no bias": {**WINOGRAD_WIDE, **EVERYTHING, "bias": False},
    "odd sizes": {**EVERYTHING, "in_channels": 13, "intrinsic": 11, "ghosts": 6, "size": (17, 23)},
    "one channel of each": {**EVERYTHING, "in_channels": 1, "intrinsic": 1, "ghosts": 1},
    "mostly ghosts": {**EVERYTHING, "in_channels": 9, "intrinsic": 3, "ghosts": 30},
    "no padding": {**WINOGRAD_WIDE, **EVERYTHING, "padding": (0, 0)},
    "padding of two": {**WINOGRAD_WIDE, **EVERYTHING, "padding": (2, 2)},
    "uneven padding": {**WINOGRAD_WIDE, **EVERYTHING, "padding": (0, 2), "size": (10, 7)},
    "one output pixel": {**WINOGRAD_WIDE, **EVERYTHING, "padding": (0, 0), "size": (3, 3)},
    "one pixel": {**WINOGRAD_WIDE, **EVERYTHING, "size": (1, 1)},
    "one row": {**WINOGRAD_WIDE, **EVERYTHING, "size": (1, 21)},
    "one column": {**WINOGRAD_WIDE, **EVERYTHING, "size": (21, 1)},
    "lower than a tile": {**WINOGRAD_WIDE, **EVERYTHING, "size": (3, 18)},
    "narrower than a tile": {**WINOGRAD_WIDE, **EVERYTHING, "size": (18, 2)},
    "largest shifts": {**WINOGRAD_WIDE, **EVERYTHING, "max_shift": 7, "size": (11, 10)},
    "several pictures": {**WINOGRAD_WIDE, **EVERYTHING, "batch": 5, "size": (5, 6)},
    "no picture": {**WINOGRAD_WIDE, **EVERYTHING, "batch": 0},
    "groups": {**WINOGRAD_WIDE, **EVERYTHING, "groups": 4, "size": (13, 9)},
    "groups of odd sizes": {
        **EVERYTHING,
        "in_channels": 15,
        "intrinsic": 33,
        "ghosts": 6,
        "groups": 3,
    },
    "groups of one channel": {**WINOGRAD_WIDE, **EVERYTHING, "in_channels": 8, "groups": 8},
    **{name: {**WINOGRAD_WIDE, **EVERYTHING, **options} for name, options in ACTIVATIONS.items()},
}
WINOGRAD_OTHERS = {
    "kernel": {**WINOGRAD_WIDE, "kernel": (5, 5), "padding": (2, 2)},
    "kernel of one row": {**WINOGRAD_WIDE, "kernel": (1, 3), "padding": (0, 1)},
    "stride": {**WINOGRAD_WIDE, "stride": (1, 2)},
    "dilation": {**WINOGRAD_WIDE, "dilation": (2, 1)},
    "pointwise": {**WINOGRAD_WIDE, "kernel": (1, 1), "padding": (0, 0)},
    "padding of three": {**WINOGRAD_WIDE, "padding": (3, 1)},
}

POINTWISE = {"kernel": (1, 1), "padding": (0, 0)}
POINTWISE_WIDE = {**POINTWISE, "in_channels": 24, "intrinsic": 16, "ghosts": 16, "size": (12, 13)}
POINTWISE_LAYERS = {
    "plain": POINTWISE_WIDE,
    "everything": {**POINTWISE_WIDE, **EVERYTHING},
    "no ghosts": {**POINTWISE_WIDE, **EVERYTHING, "ghosts": 0},
    "no bias": {**POINTWISE_WIDE, **EVERYTHING, "bias": False},
    "odd sizes": {**POINTWISE_WIDE, **EVERYTHING, "in_channels": 13, "intrinsic": 11, "ghosts": 6},
    "mostly ghosts": {**POINTWISE_WIDE, **EVERYTHING, "intrinsic": 3, "ghosts": 30},
    "groups": {**POINTWISE_WIDE, **EVERYTHING, "groups": 4},
    "groups of odd sizes": {
        **POINTWISE_WIDE,
        **EVERYTHING,
        "in_channels": 15,
        "intrinsic": 33,
        "groups": 3,
    },
    "one pixel": {**POINTWISE_WIDE, **EVERYTHING, "size": (1, 1)},
    "one row": {**POINTWISE_WIDE, **EVERYTHING, "size": (1, 21)},
    "one column": {**POINTWISE_WIDE, **EVERYTHING, "size": (21, 1)},
    "three rows": {**POINTWISE_WIDE, **EVERYTHING, "size": (3, 18)},
    "three columns": {**POINTWISE_WIDE, **EVERYTHING, "size": (18, 3)},
    "largest shifts": {**POINTWISE_WIDE, **EVERYTHING, "max_shift": 7, "size": (11, 10)},
    "several pictures": {**POINTWISE_WIDE, **EVERYTHING, "batch": 5},
    "no picture": {**POINTWISE_WIDE, **EVERYTHING, "batch": 0},
    **{name: {**POINTWISE_WIDE, **EVERYTHING, **options} for name, options in ACTIVATIONS.items()},
}
POINTWISE_OTHERS = {
    "3x3": {**POINTWISE_WIDE, "kernel": (3, 3), "padding": (1, 1)},
    "kernel of one row": {**POINTWISE_WIDE, "kernel": (1, 3), "padding": (0, 1)},
    "stride": {**POINTWISE_WIDE, "stride": (2, 2)},
    "dilation": {**POINTWISE_WIDE, "dilation": (2, 1)},
    "padding": {**POINTWISE_WIDE, "padding": (1, 0)},
}
