import torch
from ghostsr_ext.models.edsr import EDSR
from ghostsr_ext.nn import GhostConv2d


def ghost_network(max_shift=1, affine=True, **hyperparameters):
    """A small EDSR whose blocks are ghost layers with every kind of table."""
    generator = torch.Generator().manual_seed(5)
    network = EDSR(
        **{"scale": 2, "blocks": 2, "features": 8, "residual_scale": 0.5, **hyperparameters}
    )
    for block in network.body:
        for name, dense in list(block.named_children()):
            ghost = GhostConv2d(
                8,
                8,
                3,
                padding=1,
                max_shift=max_shift,
                affine=affine,
                activation=dense.activation,
                residual_scale=dense.residual_scale,
            )
            ghost.set_tables(
                torch.randint(0, 4, (4,), generator=generator),
                torch.randint(-max_shift, max_shift + 1, (4, 2), generator=generator),
                torch.randperm(8, generator=generator),
            )
            if affine:
                ghost.gain.data.uniform_(-2, 2, generator=generator)
                ghost.ghost_bias.data.uniform_(-1, 1, generator=generator)
            setattr(block, name, ghost)
    return network.eval()
