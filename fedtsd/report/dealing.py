"""How a setting's data were dealt, in words: partition, sizes, shift, drift, public, newcomers.

A *part* is one respect in which clients differ; its *knob* is the one value that says how far.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isinf
from typing import Any

Facts = Mapping[str, Any]
SEVERITIES = ("iid", "mild", "moderate", "severe", "extreme")
PLACES = ("partition", "partition.sizes", "shift", "drift")  # of the parts that have a knob


@dataclass(frozen=True)
class Kind:
    """A class that deals data.

    words: its key in TEXTS. knob: its field that says how far clients differ; `rising`, whether
    they differ more as it grows; `axis`, what an axis of it is called. even: the knob's value at
    which it makes no difference. percent: whether the knob is a share.
    """

    words: str
    knob: str = ""
    axis: str = ""
    rising: bool = True
    even: float | None = 0.0
    percent: bool = False


KINDS = {
    "Dirichlet": Kind("dirichlet", "alpha", "Dirichlet α", rising=False, even=inf),
    "Pathological": Kind(
        "classes", "classes_per_client", "classes per client", rising=False, even=inf
    ),
    "Shards": Kind("shards", "shards_per_client", "shards per client", rising=False, even=inf),
    "LabelGroups": Kind(
        "groups", "overlap", "samples from all classes (%)", rising=False, even=1.0, percent=True
    ),
    "BySite": Kind("by_site"),
    "Lognormal": Kind("lognormal", "sigma", "σ of log-normal sizes"),
    "PowerLaw": Kind("power_law", "exponent", "exponent of power-law sizes"),
    "Equal": Kind("equal"),
    "Rotation": Kind("rotation", "degrees", "largest rotation (degrees)"),
    "Brightness": Kind("brightness", "amount", "largest change of brightness (%)", percent=True),
    "Blur": Kind("blur", "sigma", "largest σ of the blur (pixels)"),
    "Noise": Kind("noise", "std", "largest σ of the noise (% of the range)", percent=True),
    "PermutedLabels": Kind("permuted", "share", "classes that change places (%)", percent=True),
    "LabelNoise": Kind("label_noise", "rate", "largest share of wrong labels (%)", percent=True),
    "NewLaw": Kind("new_law", "share", "clients that drift (%)", percent=True),
}
# English words; the page has its own in two languages under the same keys.
TEXTS = {
    "iid": "IID",
    "iid_labels": "IID labels",
    "dirichlet": "Dirichlet α = {knob}",
    "classes": "{knob} classes per client",
    "one_class": "1 class per client",
    "shards": "{knob} shards per client",
    "one_shard": "1 shard per client",
    "groups": "{groups} label groups",
    "groups_shared": "{groups} label groups with {knob} % shared",
    "by_site": "by site",
    "lognormal": "log-normal sizes σ = {knob}",
    "power_law": "power-law sizes with exponent {knob}",
    "equal": "equal sizes",
    "rotation": "rotated up to {knob}°",
    "brightness": "brightened up to {knob} %",
    "blur": "blurred up to σ = {knob} pixels",
    "noise": "noise up to {knob} %",
    "permuted": "{knob} % of classes permuted",
    "label_noise": "up to {knob} % label noise",
    "new_law": "{knob} % of clients drift at round {round}",
    "public_other": "public samples of {name}",
    "public_folder": "public samples from files",
    "public_noise": "public samples of {kind} noise",
    "public_mixed": "public samples with {share} % junk",
    "newcomers": "{share} % newcomers",
    "newcomers_join": "{share} % newcomers from round {round}",
    "in_groups": "{what} in {groups} groups",
}
PUBLIC = {
    "OtherDataset": "public_other",
    "Folder": "public_folder",
    "Noise": "public_noise",
    "Mixed": "public_mixed",
}
# What the words of `parts` tell; of the rest of a config, keys that differ are named one by one.
SAID = (
    "partition.num_groups", "shift.num_groups", "drift.round", "cohort.newcomers",
    "cohort.join_round", "public.dataset.name", "public.kind", "public.junk_share",
    *(f"{place}.{kind.knob}" for place in PLACES for kind in KINDS.values() if kind.knob),
)  # fmt: skip
DATASET_LABELS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "emnist": "EMNIST",
    "femnist": "FEMNIST",
}


@dataclass(frozen=True)
class Part:
    """One respect in which clients differ: a key of TEXTS and what fills it."""

    key: str
    values: Mapping[str, Any]
    groups: int | None = None  # planted groups of a shift


def partition_label(config: Facts) -> str:
    """How a run's samples were dealt out, in a few words; empty where the config says nothing."""
    return ", ".join(map(_say, parts(config)))


def _say(part: Part) -> str:
    text = TEXTS.get(part.key, part.key).format_map(part.values)
    if part.groups is None:
        return text
    return TEXTS["in_groups"].format(what=text, groups=part.groups)


def parts(config: Facts) -> list[Part]:
    """What makes the clients of a run differ: the mix of labels first, then everything else."""
    labels, *others = (_part(node_at(config, place)) for place in PLACES)
    known = [part for part in others if part is not None]
    if labels is None and config.get("partition"):
        differ = any(part.key != "equal" for part in known)
        labels = Part("iid_labels" if differ else "iid", {})
    return [*([labels] if labels else []), *known, *_beside(config)]


def node_at(config: Facts, place: str) -> Facts:
    """The node at a dotted place of the config; empty where there is none."""
    node: Any = config
    for key in place.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def class_of(node: Facts) -> str:
    """The name of the class that a node of the config makes; empty for none."""
    return str(node.get("_target_", "")).rpartition(".")[2]


def knob_of(node: Facts) -> float | None:
    """The value that says how far clients differ; infinite where null stands for all."""
    kind = KINDS.get(class_of(node))
    if kind is None or not kind.knob:
        return None
    value = node.get(kind.knob, 0.0)  # folders of older versions lack the newer fields
    return inf if value is None else float(value)


def knob_text(node: Facts) -> str:
    """The value of the knob as people read it: a share in %, `all` where nothing limits it."""
    value = knob_of(node)
    if value is None:
        return ""
    if isinf(value):
        return "all"
    return _percent(value) if KINDS[class_of(node)].percent else f"{value:.4g}"


def _part(node: Facts) -> Part | None:
    """The words of one node; None where it makes no difference."""
    name = class_of(node)
    if name in ("", "Iid"):
        return None
    kind = KINDS.get(name, Kind(name))
    if kind.knob and knob_of(node) == kind.even:
        return None
    groups = node.get("num_groups")
    key = kind.words
    if key == "groups" and knob_of(node):
        key = "groups_shared"
    if knob_of(node) == 1:
        key = {"classes": "one_class", "shards": "one_shard"}.get(key, key)
    values = {**node, "knob": knob_text(node), "groups": groups}
    in_groups = groups is not None and kind.words != "groups"
    return Part(key, values, int(groups) if groups is not None and in_groups else None)


def _beside(config: Facts) -> Iterator[Part]:
    """What else belongs to the data: where public samples come from, and who joins late."""
    public = node_at(config, "public")
    if key := PUBLIC.get(class_of(public)):
        name = str(node_at(public, "dataset").get("name", ""))
        facts = {"name": DATASET_LABELS.get(name, name), "kind": public.get("kind")}
        yield Part(key, {**facts, "share": _percent(public.get("junk_share", 0.0))})
    cohort = node_at(config, "cohort")
    if share := cohort.get("newcomers"):
        late = cohort.get("join_round")
        key = "newcomers" if late is None else "newcomers_join"
        yield Part(key, {"share": _percent(share), "round": late})


def _percent(share: float) -> str:
    return f"{100 * share:.4g}"
