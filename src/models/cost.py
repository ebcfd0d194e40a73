"""What a network costs."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_gmacs(model: nn.Module, image_size: tuple[int, int]) -> float | None:
    """Billions of multiply-adds for one image of [height, width], in convolutions and matrix products.

    Nothing is computed and nothing of the network changes: its weights are stood in for by tensors without numbers. None where
    a network cannot be run on these.
    """
    stand_ins = {name: tensor.to("meta") for name, tensor in model.state_dict(keep_vars=True).items()}
    modes = [(module, module.training) for module in model.modules()]
    counter = FlopCounterMode(display=False)
    model.eval()
    try:
        with torch.no_grad(), counter:
            functional_call(model, stand_ins, torch.empty(1, 3, *image_size, device="meta"))
    except Exception:  # a network may raise anything where tensors have no numbers; training is not to end for a count
        return None
    finally:
        for module, is_training in modes:
            module.training = is_training
    return counter.get_total_flops() / 2e9
