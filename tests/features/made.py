"""Features made up for tests, and what is found in them by brute force."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOKENS, WIDTH = 4, 16


def made(path: Path, rows: int, dtype: str = "float32", seed: int = 0, centres: int = 40) -> np.ndarray:
    """Write features of images, each near one of some centres, every 7th row without any; gives them."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, 1, WIDTH))[rng.integers(0, centres, rows)]
    vectors = middle + rng.standard_normal((rows, TOKENS, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(dtype)
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(vectors.dtype), (TOKENS, WIDTH))
    missing = pa.array(np.arange(rows) % 7 == 6)
    storage = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), type=kind.storage_type, mask=missing)
    columns = {
        "image": pa.array([f"{at}.jpg" for at in range(rows)]),
        "n": pa.array(range(rows)),
        "features": pa.ExtensionArray.from_storage(kind, storage),
        "error": pa.array(["missing: gone" if at % 7 == 6 else None for at in range(rows)]),
    }
    table = pa.table(columns).replace_schema_metadata({b"blip2": b'{"features": "itc", "model": "tiny"}'})
    if path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    else:
        pq.write_table(table, path, row_group_size=50)
    return vectors


def many(folder: Path, suffix: str, rows: int, width: int) -> np.ndarray:
    """Write features without errors in one piece: a file of a suffix, or an array with its metadata; gives them."""
    vectors = np.random.default_rng(0).standard_normal((rows, 1, width), np.float32)
    kind = pa.fixed_shape_tensor(pa.float32(), (1, width))
    storage = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), type=kind.storage_type)
    said = {b"blip2": b'{"features": "itc", "model": "tiny"}'}
    names = {"image": pa.array([f"{at}.jpg" for at in range(rows)]), "error": pa.nulls(rows, pa.string())}
    table = pa.table({**names, "features": pa.ExtensionArray.from_storage(kind, storage)}).replace_schema_metadata(said)
    if suffix == ".npy":
        (folder / "img_emb").mkdir()
        (folder / "metadata").mkdir()
        np.save(folder / "img_emb" / "img_emb_0.npy", vectors)
        pq.write_table(table.drop_columns("features"), folder / "metadata" / "metadata_0.parquet")
    elif suffix == ".arrow":
        with pa.ipc.new_file(folder / "f.arrow", table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, folder / "f.parquet")
    return vectors


def brute_force(vectors: np.ndarray, query: np.ndarray, most: int) -> list[int]:
    scores = np.einsum("rtw,qw->rtq", vectors.astype(np.float64), query.astype(np.float64)).max(1).mean(1)
    scores[np.arange(len(vectors)) % 7 == 6] = -np.inf
    return list(np.argsort(-scores, kind="stable")[:most])


def queries() -> list[np.ndarray]:
    """A text's vector, and an image's."""
    rng = np.random.default_rng(5)
    vectors = [rng.standard_normal((length, WIDTH)).astype(np.float32) for length in (1, TOKENS)]
    return [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in vectors]
