"""What is trained: the explicit list of parameters."""

from torch import nn


def trained_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a network that its forward pass uses, by name, switched to training.

    `clip_mean` and `clip_std` are statistics that are stored as parameters: no forward pass reads
    them.
    """
    statistics = ("clip_mean", "clip_std")
    chosen = {name: p for name, p in net.named_parameters() if name not in statistics}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen
