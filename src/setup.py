"""What a run is made of and does not change while it trains."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.datasets.sampler import EpochSampler
from src.device import Compute, Normalize
from src.ranks import Ranks


@dataclass(frozen=True)
class Setup:
    """What training needs and does not change.

    Attributes:
        train_loader: Batches of (uint8 images, uint8 masks), ordered by `sampler`.
        sampler: Told which epoch comes.
        val_loader: The same images in the same order each time.
        loss: Called through `sum_loss`.
        class_names: Of the scored classes; class i has id i.
        batch_size: Images of a step, over all ranks.
        ranks: The processes that train together.
        parallel: What training calls instead of the network where there are several ranks; it averages their gradients.
        max_skipped: How many steps in a row may be skipped because a loss or gradient is not finite; one more ends training.
        extra_classes: Whether ids beyond the scored classes are learnt too (`dataset.labels=index`).
    """

    train_loader: DataLoader[tuple[Tensor, Tensor]]
    sampler: EpochSampler
    val_loader: DataLoader[tuple[Tensor, Tensor]]
    normalize: Normalize
    compute: Compute
    loss: nn.Module
    num_classes: int
    ignore_index: int
    class_names: tuple[str, ...]
    extra_classes: bool
    batch_size: int
    ranks: Ranks
    parallel: nn.Module | None = None
    max_skipped: int = 0
