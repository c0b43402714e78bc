"""Shifts: what a client sees of its samples.

Feature shift changes the pictures, concept shift what the labels mean, label noise makes some of
them wrong. A shift is a strength up to its knob. With `num_groups`, client i is in group i modulo
`num_groups`, and the groups stand at evenly spaced strengths from 0 to the knob; without, each
client has a strength of its own, uniform from 0 to the knob. At 0 nothing is changed, and there are
no groups.

All draws derive from (seed, client, split), and the first samples of a split look the same whether
or not others come after them.

Shapes: n samples, N clients, Y classes, images of C channels and H x W pixels.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fedtsd.data.dataset import Facts
from fedtsd.seeding import numpy_rng

WHITE = 255.0
"""The top of the scale of a picture; 0 is black."""

PERMUTATIONS_TRIED = 50
"""Draws to find a permutation that no other group has."""


@dataclass(frozen=True)
class Viewer:
    """Who looks at which of its samples: split is train, val or test; num_classes is Y."""

    client: int
    split: str
    num_classes: int
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """The generator of what is drawn sample by sample."""
        return numpy_rng(self.seed, f"shift {self.split}", self.client)


class Shift(Protocol):
    """What `conf/shift/*.yaml` describes."""

    changes_labels: ClassVar[bool]
    """Whether labels come out changed; if not, who asks for labels alone need not read inputs."""

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        """The planted group of each client, int64 [N]; None where there are none."""
        ...

    def check(self, facts: Facts) -> None:
        """Raise ValueError naming the field if the data set does not fit."""
        ...

    def apply(
        self, inputs: np.ndarray, labels: np.ndarray, viewer: Viewer
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs [n, C, H, W] and labels int64 [n] as the viewer sees them.

        inputs: as stored, uint8; they come out on the same scale, perhaps as float32.
        """
        ...


@dataclass(frozen=True)
class _Shift:
    """What all shifts have in common; `KNOB` names the field with the largest strength."""

    KNOB: ClassVar[str]
    LIMIT: ClassVar[float] = 1.0

    num_groups: int | None

    def __post_init__(self) -> None:
        if self.num_groups is not None and self.num_groups < 2:
            raise ValueError(f"num_groups: must be null or at least 2, got {self.num_groups}")
        if not 0 <= self.most <= self.LIMIT:
            raise ValueError(f"{self.KNOB}: must be 0 to {self.LIMIT:g}, got {self.most:g}")

    @property
    def most(self) -> float:
        """The largest strength."""
        return float(getattr(self, self.KNOB))

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        if self.num_groups is None or self.most == 0:
            return None
        return np.arange(num_clients) % self.num_groups

    def strength(self, client: int, seed: int) -> float:
        """Return how strong the shift of a client is, from 0 to the largest strength."""
        if self.num_groups is None:
            return float(numpy_rng(seed, "shift strength", client).uniform(0.0, self.most))
        return self.most * (client % self.num_groups) / (self.num_groups - 1)


@dataclass(frozen=True)
class _Pictures(_Shift):
    """Feature shift: changes pictures in all splits alike, and no labels."""

    changes_labels: ClassVar[bool] = False

    def check(self, facts: Facts) -> None:
        if not facts.is_image:
            raise ValueError(
                f"{self.KNOB}: needs images, a sample of this data set has shape {facts.shape}"
            )

    def changed(self, inputs: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        """Return pictures at a strength above 0."""
        raise TypeError(f"{type(self).__name__} does not say what it does")

    def apply(
        self, inputs: np.ndarray, labels: np.ndarray, viewer: Viewer
    ) -> tuple[np.ndarray, np.ndarray]:
        strength = self.strength(viewer.client, viewer.seed)
        if strength == 0:
            return inputs, labels
        return self.changed(inputs, strength, viewer.rng), labels


@dataclass(frozen=True)
class Rotation(_Pictures):
    """Pictures turned counter-clockwise about their centre, by up to `degrees`.

    Ghosh et al. 2020 (IFCA) turn MNIST by 0, 90, 180 and 270 degrees: four groups. Quarter turns of
    square pictures move pixels and are exact; between, pixels are interpolated (bilinear), and what
    comes from outside takes the nearest pixel of the edge.
    """

    KNOB: ClassVar[str] = "degrees"
    LIMIT: ClassVar[float] = 360.0

    degrees: float

    def changed(self, inputs: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        square = inputs.shape[2] == inputs.shape[3]
        if strength % (90 if square else 180) == 0:
            return np.rot90(inputs, round(strength / 90), axes=(2, 3)).copy()
        # Lazily: SciPy takes a while to import.
        from scipy import ndimage

        turned: np.ndarray = ndimage.rotate(
            inputs.astype(np.float32), strength, axes=(2, 3), reshape=False, order=1, mode="nearest"
        )
        return turned


@dataclass(frozen=True)
class Brightness(_Pictures):
    """Pictures taken in too much light: at strength a, x becomes m + (1 - a/2)(x - m) + 255 a/2.

    m is mid-grey, 127.5: contrast falls to 1 - a / 2, a / 2 of the scale is added, and what exceeds
    white is cut off.
    """

    KNOB: ClassVar[str] = "amount"

    amount: float

    def changed(self, inputs: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        grey = WHITE / 2
        contrasted = grey + (1 - strength / 2) * (inputs.astype(np.float32) - grey)
        return _on_scale(contrasted + strength / 2 * WHITE)


@dataclass(frozen=True)
class Blur(_Pictures):
    """Pictures out of focus: smoothed by a Gaussian of standard deviation up to `sigma` pixels."""

    KNOB: ClassVar[str] = "sigma"
    LIMIT: ClassVar[float] = 100.0

    sigma: float

    def changed(self, inputs: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        width = (0, 0, strength, strength)
        blurred: np.ndarray = gaussian_filter(inputs.astype(np.float32), width, mode="nearest")
        return blurred


@dataclass(frozen=True)
class Noise(_Pictures):
    """Gaussian noise on each pixel, as in Li et al. 2022, whose clients' levels rise evenly too.

    std: the largest standard deviation, as a share of the scale from black to white; what exceeds
    the scale is cut off.
    """

    KNOB: ClassVar[str] = "std"

    std: float

    def changed(self, inputs: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(inputs.shape, dtype=np.float32)
        return _on_scale(inputs + strength * WHITE * noise)


@dataclass(frozen=True)
class _Labels(_Shift):
    """Changes labels, and no inputs."""

    changes_labels: ClassVar[bool] = True

    def check(self, facts: Facts) -> None:
        if facts.regression or len(facts.classes) < 2:
            raise ValueError(f"{self.KNOB}: needs a data set with two or more classes")


@dataclass(frozen=True)
class PermutedLabels(_Labels):
    """Concept shift: the same picture has another label elsewhere (Sattler et al. 2020).

    `share` of the classes, two at least, change places in a cycle, so that none keeps its own. All
    groups but group 0 have that share, each with a permutation of its own as long as there are
    enough. Without groups, each client has a share and a permutation of its own.
    """

    KNOB: ClassVar[str] = "share"

    share: float

    def apply(
        self, inputs: np.ndarray, labels: np.ndarray, viewer: Viewer
    ) -> tuple[np.ndarray, np.ndarray]:
        names = self.permutation(viewer.client, viewer.num_classes, viewer.seed)
        return inputs, names[labels]

    def permutation(self, client: int, num_classes: int, seed: int) -> np.ndarray:
        """Return the label that a client gives to each class, int64 [Y]."""
        if self.num_groups is None:
            rng = numpy_rng(seed, "shift permutation", client)
            return _cycle(self.strength(client, seed), num_classes, rng)
        found = [np.arange(num_classes)]
        for group in range(1, 1 + client % self.num_groups):
            rng = numpy_rng(seed, "shift permutation", group)
            # Few classes have few permutations: then two groups may share one.
            tries = [_cycle(self.share, num_classes, rng) for _ in range(PERMUTATIONS_TRIED)]
            unlike = (new for new in tries if not any(np.array_equal(new, old) for old in found))
            found.append(next(unlike, tries[0]))
        return found[-1]


@dataclass(frozen=True)
class LabelNoise(_Labels):
    """Labels of training and validation data that are wrong: another class, each as likely.

    A client's share of wrong labels, up to `rate`, is its own, as in Xu et al. 2022 (FedCorr). Test
    labels stay right: noise is an error of labelling, not a law to be learned.
    """

    KNOB: ClassVar[str] = "rate"

    rate: float

    def apply(
        self, inputs: np.ndarray, labels: np.ndarray, viewer: Viewer
    ) -> tuple[np.ndarray, np.ndarray]:
        if viewer.split == "test":
            return inputs, labels
        num_classes = viewer.num_classes
        drawn = viewer.rng.random((len(labels), 2))
        wrong = drawn[:, 0] < self.strength(viewer.client, viewer.seed)
        others = 1 + np.floor(drawn[:, 1] * (num_classes - 1)).astype(np.int64)
        return inputs, np.where(wrong, (labels + others) % num_classes, labels)


def _on_scale(pixels: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(pixels, 0, WHITE).astype(np.float32)
    return clipped


def _cycle(share: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation int64 [Y] that moves a share of the classes, two at least."""
    permutation = np.arange(num_classes)
    if share > 0:
        moved = rng.choice(num_classes, max(2, round(share * num_classes)), replace=False)
        permutation[moved] = np.roll(moved, 1)
    return permutation
