"""Pictures to train on: decoded once, cut into patches, the same at every run of one seed."""

from ghostsr_ext.training.data.batches import Batch, BatchPlan, PatchBatches, detail
from ghostsr_ext.training.data.cache import default_cache_folder, open_cached
from ghostsr_ext.training.data.store import PictureStore

__all__ = [
    "Batch",
    "BatchPlan",
    "PatchBatches",
    "PictureStore",
    "default_cache_folder",
    "detail",
    "open_cached",
]
