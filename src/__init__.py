"""Attention U-Net on CamVid, configured by Hydra. Start reading at `src/train.py`."""

import os

# albumentations asks a package index for its newest version when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
