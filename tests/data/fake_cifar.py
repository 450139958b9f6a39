"""How CIFAR-10 is laid out in parquet tables and in the official pickled batches."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pyarrow as pa
from PIL import Image

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def table(images: np.ndarray, labels: np.ndarray, label: str = "label", image: str = "img") -> pa.Table:
    cells = [{"bytes": png(pixels), "path": None} for pixels in images]
    return pa.table({image: pa.array(cells, CELL), label: pa.array(labels, pa.int64())})


def batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # the published layout: red, green, blue planes
    return pickle.dumps({"data": rows, "labels": labels.tolist()})
