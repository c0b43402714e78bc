"""People's own data as they might bring them, made of scikit-learn's bundled sets."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

SITES = ("berlin", "kyoto", "lima")


def write_clinics(folder: Path, target: str = "diagnosis") -> Path:
    """One CSV per site of the breast cancer table: 569 rows, 30 numbers, two classes."""
    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": target})
    frame[target] = frame[target].map({0: "malignant", 1: "benign"})
    return _by_site(frame, folder)


def write_diabetes(folder: Path) -> Path:
    """One CSV per site of the diabetes table: 442 rows, 10 numbers, a number to predict."""
    return _by_site(load_diabetes(as_frame=True).frame, folder)


def write_pictures(folder: Path, per_class: int = 8) -> Path:
    """Folders per site and class with 8 x 8 pictures of the digits 0, 1 and 2."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    for digit in range(3):
        found = pixels[labels == digit][: per_class * len(SITES)]
        for number, picture in enumerate(found):
            place = folder / SITES[number % len(SITES)] / f"digit {digit}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:03d}.png")
    return folder


def _by_site(frame: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).permutation(len(frame))
    for name, part in zip(SITES, np.array_split(rows, len(SITES)), strict=True):
        frame.iloc[np.sort(part)].to_csv(folder / f"{name}.csv", index=False)
    return folder
