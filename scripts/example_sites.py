"""Write real data as the files of several sites, to try `dataset=table` and `dataset=image_folder`.

    python scripts/example_sites.py clinics data/clinics    breast cancer, a CSV per clinic
    python scripts/example_sites.py patients data/patients  diabetes, one CSV with a clinic column
    python scripts/example_sites.py shops data/shops        Fashion-MNIST, folders of shop and class

The sites differ in size, and in how common each class is (each third of the values to predict).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes

from fedtsd.data.command import image_set
from fedtsd.data.dataset import default_root
from fedtsd.data.partition import Dirichlet, Pool
from fedtsd.data.sizes import Lognormal
from fedtsd.seeding import numpy_rng

CITIES = ("Berlin", "Kyoto", "Lima", "Lyon", "Nairobi", "Osaka", "Porto", "Quito")
ALPHA, SIGMA = 1.0, 0.5


def sites(labels: np.ndarray, least: int, each: int | None = None) -> list[np.ndarray]:
    """Return the samples of each city."""
    law = Dirichlet(len(CITIES), least, each, Lognormal(SIGMA), ALPHA)
    pool = Pool(labels, int(labels.max()) + 1)
    return law.assign(pool, numpy_rng(0, "example sites"))


def clinics(folder: Path) -> None:
    frame = load_breast_cancer(as_frame=True).frame
    labels = frame.pop("target").to_numpy()
    frame["diagnosis"] = np.where(labels == 0, "malignant", "benign")
    for city, rows in zip(CITIES, sites(labels, 25), strict=True):
        frame.iloc[rows].to_csv(folder / f"{city}.csv", index=False)


def patients(folder: Path) -> None:
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progress"})
    frame["sex"] = np.where(frame["sex"] == 1, "a", "b")  # scikit-learn does not say which is which
    thirds = pd.qcut(frame["progress"], 3, labels=False).to_numpy()
    for city, rows in zip(CITIES, sites(thirds, 25), strict=True):
        frame.loc[rows, "clinic"] = city
    frame.to_csv(folder / "patients.csv", index=False)


def shops(folder: Path) -> None:
    arrays = image_set("fashion_mnist").load(default_root())
    for city, rows in zip(CITIES, sites(arrays.labels, 100, each=300), strict=True):
        for row in rows:
            place = folder / city / arrays.classes[arrays.labels[row]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays.inputs[row, 0]).save(place / f"{row:05d}.png")


EXAMPLES: dict[str, Callable[[Path], None]] = {
    "clinics": clinics,
    "patients": patients,
    "shops": shops,
}


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in EXAMPLES:
        sys.exit(__doc__)
    folder = Path(sys.argv[2])
    if folder.exists():
        sys.exit(f"{folder} exists already; name a new folder")
    folder.mkdir(parents=True)
    EXAMPLES[sys.argv[1]](folder)
    print(folder)


if __name__ == "__main__":
    main()
