"""How weights start."""

from typing import Literal, get_args

from torch import nn

Init = Literal["normal", "xavier", "kaiming", "orthogonal", "default"]

# Of BatchNorm's weights around 1, for any gain. The original script draws them with the gain itself: the same at its
# default of 0.02, while a gain of 1 would give BatchNorm weights from -2 to 4.
NORM_WEIGHT_DEVIATION = 0.02
TEXTBOOK_GAIN = {"normal": 0.02, "xavier": 1.0, "kaiming": 1.0, "orthogonal": 1.0, "default": 1.0}
WITHOUT_GAIN = ("kaiming", "default")  # which no gain changes


def initialize(network: nn.Module, init: Init, gain: float | None) -> None:
    """Draws every convolution's weight anew and sets its bias to 0; BatchNorm weights from N(1, 0.02), bias 0.

    At a gain of 0.02 this is the initialisation of the original script (and of pix2pix). At other gains it differs: there
    the BatchNorm weights come from N(1, gain), here from N(1, 0.02).

    Args:
        network: Changed in place.
        init: `normal` N(0, gain); `xavier` normal (Glorot & Bengio 2010) and `orthogonal` (Saxe et al. 2013) scaled by
            gain; `kaiming` normal over the fan-in (He et al. 2015), which takes no gain; `default` leaves the network
            as torch made it.
        gain: null is the textbook gain: 1 for xavier and orthogonal, 0.02 for normal.

    Raises:
        ValueError: If `init` is none of these.
    """
    if init not in get_args(Init):
        raise ValueError(f"init={init!r}; allowed are {', '.join(get_args(Init))}")
    if init == "default":
        return
    scale = TEXTBOOK_GAIN[init] if gain is None else gain
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            _draw_weight(module, init, scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, NORM_WEIGHT_DEVIATION)
            nn.init.zeros_(module.bias)


def _draw_weight(convolution: nn.Conv2d | nn.ConvTranspose2d, init: Init, scale: float) -> None:
    if init == "normal":
        nn.init.normal_(convolution.weight, 0.0, scale)
    elif init == "xavier":
        nn.init.xavier_normal_(convolution.weight, scale)
    elif init == "kaiming":
        nn.init.kaiming_normal_(convolution.weight, mode="fan_in")
    else:
        nn.init.orthogonal_(convolution.weight, scale)
