"""Images to train and measure on: folders, tars, Hugging Face data sets and our own sets (docs/data.md)."""

from hieramp.class_names import described_classes
from hieramp.data.batches import (
    Batch,
    DecodedImages,
    EndlessBatches,
    decode,
    decode_whole,
    endless_loader,
    to_signed,
)
from hieramp.data.pictures import to_square
from hieramp.data.source import (
    DataSource,
    DataSpec,
    has_test_split,
    in_order_of_model,
    open_source,
    read_image,
    what_is_missing,
)

__all__ = [
    "Batch",
    "DataSource",
    "DataSpec",
    "DecodedImages",
    "EndlessBatches",
    "decode",
    "decode_whole",
    "described_classes",
    "endless_loader",
    "has_test_split",
    "in_order_of_model",
    "open_source",
    "read_image",
    "to_signed",
    "to_square",
    "what_is_missing",
]
