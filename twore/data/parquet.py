"""Labelled images out of parquet tables in the Hugging Face layout: a struct column with PNG bytes, and a label column.

Decoding PNG is exact, so the same table gives the same pixels everywhere. Nothing in a table is ever executed, and only
PNG is decoded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from twore.data.images import DataError

IMAGE_COLUMNS = ("img", "image")  # uoft-cs/cifar10 and uoft-cs/cifar100; the second is the hub's usual name


def find_shards(folder: Path, part: str) -> list[Path]:
    """The files `train*.parquet` or `test*.parquet` of `folder` in name order; `DataError` when one is missing."""
    shards = sorted(folder.glob(f"{part}*.parquet"))
    declared = [match for shard in shards if (match := re.search(r"-(\d+)-of-(\d+)$", shard.stem))]
    if declared:
        total = int(declared[0][2])
        if len(shards) != total or {int(match[1]) for match in declared} != set(range(total)):
            raise DataError(f"{folder} has {len(shards)} {part} parquet files of {total}: copy all, and no other")
    return shards


def read_shards(shards: Sequence[Path]) -> pa.Table:
    """The rows of all shards in the given order; `DataError` when one is damaged or they differ in columns."""
    tables = []
    for shard in shards:
        try:
            tables.append(pq.read_table(shard, page_checksum_verification=True))
        except (pa.ArrowException, OSError) as error:  # ArrowInvalid, or an OSError for a page that does not decompress
            raise DataError(f"{shard} is damaged or no parquet file: copy or download it again") from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError(f"the parquet files in {shards[0].parent} differ in columns: keep one data set's") from error


def decode_table(
    table: pa.Table, *, label_columns: Sequence[str], size: tuple[int, int], where: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, H, W, 3) and labels (N,) of a table; the first present of `label_columns` is used; size is (H, W).

    `where` names the table in messages. Raises `DataError` for missing columns, empty cells and images that are damaged
    or not RGB of that size.
    """
    image_column = _first_present(table, IMAGE_COLUMNS, where)
    label_column = _first_present(table, label_columns, where)
    cells, labels = table.column(image_column), table.column(label_column)
    if not pa.types.is_struct(cells.type) or cells.type.get_field_index("bytes") < 0:
        raise DataError(f"column {image_column!r} of {where} must hold the images' bytes: got {cells.type}")
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise DataError(f"column {label_column!r} of {where} must hold an integer in every row: got {labels.type}")
    pngs = pc.struct_field(cells, "bytes").to_pylist()
    if not pngs:
        raise DataError(f"{where} has no rows: copy or download it again")
    images = np.empty((len(pngs), *size, 3), dtype=np.uint8)
    for row, png in enumerate(pngs):
        images[row] = _decode(png, size, f"row {row} of {where}")
    return images, labels.to_numpy().astype(np.int64)


def _first_present(table: pa.Table, columns: Sequence[str], where: str) -> str:
    for column in columns:
        if column in table.column_names:
            return column
    wanted, found = " or ".join(map(repr, columns)), ", ".join(table.column_names)
    raise DataError(f"{where} has no column {wanted} but {found}: it is another data set")


def _decode(png: bytes | None, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    if png is None:
        raise DataError(f"{where} has no image bytes: the table must embed its images")
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.mode != "RGB" or image.size != size[::-1]:  # known from the header, before any decoding
                found = f"{image.mode} {image.size[1]}x{image.size[0]}"
                raise DataError(f"{where} must be an RGB image of {size[0]}x{size[1]} pixels: got {found}")
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise DataError(f"{where} is not an intact PNG image: copy or download the data again") from error
