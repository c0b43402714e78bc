"""Loading a run's data and dealing them to its clients."""

from functools import lru_cache
from pathlib import Path

from fedtsd.config import Config
from fedtsd.data.dataset import Arrays, Dataset, default_root
from fedtsd.data.federation import Federation, build_federation


def load_federation(config: Config) -> Federation:
    """Load the data set and deal it to the clients."""
    return build_federation(load_arrays(config), config.deal, root_of(config), config.seed)


def root_of(config: Config) -> Path:
    """Return where data sets are kept."""
    return Path(config.data.root) if config.data.root else default_root()


def load_arrays(config: Config) -> Arrays:
    """Load a run's data set, once per process: the cells of a sweep share it."""
    return _load_arrays(config.dataset, root_of(config))


@lru_cache(maxsize=2)
def _load_arrays(dataset: Dataset, root: Path) -> Arrays:
    return dataset.load(root)
