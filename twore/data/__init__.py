"""Data sets: images in memory, their subsamples and augmentation; the embedded digits need no network."""

from twore.data.augment import STATISTICS, ChannelStatistics, ImageBatches
from twore.data.images import (
    DATA_SETS,
    DataError,
    ImageSet,
    Split,
    data_folder,
    known_fingerprint,
    load_images,
    subsample,
)

__all__ = [
    "DATA_SETS",
    "STATISTICS",
    "ChannelStatistics",
    "DataError",
    "ImageBatches",
    "ImageSet",
    "Split",
    "data_folder",
    "known_fingerprint",
    "load_images",
    "subsample",
]
