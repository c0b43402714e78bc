"""Which sites ended up together, since when, and the test behind it; or why nothing was split."""

from dataclasses import dataclass

import pandas as pd

from fedtsd.report.page.words import Say, say
from fedtsd.report.tables import RunTables


@dataclass(frozen=True)
class Group:
    """A cluster of the last round; since: the first round from which it had just these sites."""

    cluster: int
    sites: tuple[int, ...]
    since: int
    personal_layers: tuple[int, ...]


@dataclass(frozen=True)
class Grouping:
    """The clusters of one run, the largest first, and sentences that explain them."""

    groups: tuple[Group, ...]
    why: tuple[Say, ...]
    late_moves: int
    num_layers: int

    @property
    def sentences(self) -> list[Say]:
        """How many clusters there are, why, and how many layers are personal."""
        n, sites = len(self.groups), sum(len(group.sites) for group in self.groups)
        count = say("clusters.count" if n > 1 else "clusters.one", n=n, sites=sites)
        return [count, *self.why, self._personal()]

    def _personal(self) -> Say:
        counts = [p for group in self.groups for p in group.personal_layers]
        if max(counts) == 0:
            return say("clusters.personal_none")
        if min(counts) == max(counts):
            return say("clusters.personal_all", low=min(counts), of=self.num_layers)
        mean = sum(counts) / len(counts)
        facts = {"low": min(counts), "high": max(counts), "of": self.num_layers, "mean": mean}
        return say("clusters.personal", **facts)


def grouping(tables: RunTables) -> Grouping:
    """Read the clusters of a run from its tables."""
    members = tables.assignments.pivot_table(index="round", columns="client", values="cluster")
    members = members.sort_index().ffill()
    groups = _groups(tables, members)
    why = _splits(tables) if len(groups) > 1 else [_why_none(tables)]
    return Grouping(
        groups=tuple(groups),
        why=(*why, *_agreement(tables)),
        late_moves=_late_moves(members),
        num_layers=len(tables.summary.get("layers") or tables.model),
    )


def _groups(tables: RunTables, members: pd.DataFrame) -> list[Group]:
    last = members.iloc[-1]
    personal = _personal_layers(tables)
    groups = []
    for cluster in sorted(last.unique()):
        alike = ((members == cluster) == (last == cluster)).all(axis=1)
        changed = alike.index[~alike]
        since = (
            members.index[members.index > changed.max()].min() if len(changed) else alike.index[0]
        )
        sites = tuple(int(c) for c in last.index[last == cluster])
        kept = tuple(int(personal.get(c, 0)) for c in sites)
        groups.append(Group(int(cluster), sites, int(since), kept))
    return sorted(groups, key=lambda group: (-len(group.sites), group.cluster))


def _personal_layers(tables: RunTables) -> "pd.Series[int]":
    if "personal_layers" not in tables.assignments:
        return pd.Series(dtype=int)
    rows = tables.assignments.sort_values("round", kind="stable")
    return rows.drop_duplicates("client", keep="last").set_index("client")["personal_layers"]


def _late_moves(members: pd.DataFrame) -> int:
    """How often a site changed its cluster in the last third of the rounds."""
    before = members.shift()
    moved = (members.notna() & before.notna() & (members != before)).iloc[1:]
    late = moved[moved.index > members.index.max() * 2 / 3]
    return int(late.to_numpy().sum())


def _splits(tables: RunTables) -> list[Say]:
    rows = tables.clustering[tables.clustering["split"] == 1]
    return [
        say(
            f"clusters.split.{_kind(row)}",
            round=int(row["round"]),
            sites=int(row.get("size", len(tables.order))),
            strength=_strength(float(row.get("silhouette", float("nan")))),
            silhouette=float(row.get("silhouette", float("nan"))),
            hopkins=float(row["hopkins"]),
            p=float(row["hopkins_p"]),
        )
        for _, row in rows.sort_values(["round", "stage", "cluster"]).iterrows()
    ] or [say("clusters.split.untested")]


def _kind(row: "pd.Series[float]") -> str:
    """Which words a split takes: those of its stage, unless no Hopkins test was behind it."""
    return "plain" if pd.isna(row["hopkins"]) else f"stage{int(row['stage'])}"


def _strength(silhouette: float) -> Say:
    """Kaufman and Rousseeuw's (1990) reading of the mean silhouette."""
    for least, name in ((0.7, "strong"), (0.5, "reasonable"), (0.25, "weak")):
        if silhouette > least:
            return say(f"clusters.strength.{name}")
    return say("clusters.strength.none")


def _why_none(tables: RunTables) -> Say:
    """Say why there is one cluster."""
    tests = tables.clustering
    policy = str(tables.option("clustering._target_", ""))
    family = str(tables.option("method.family", ""))
    if tests.empty and (
        policy.endswith("OneCluster") or family in ("alone", "global", "personalised")
    ):
        return say("clusters.none.method")
    if tests.empty and tables.option("clustering.num_clusters") is not None:
        return say("clusters.none.plain")
    least = int(tables.option("clustering.min_clients", 0))
    if tests.empty and len(tables.order) < least:
        return say("clusters.none.few", sites=len(tables.order), least=least)
    if tests.empty:
        return say("clusters.none.untested")
    if (tests["split"] == 1).any():
        return say("clusters.none.merged")
    if tests["hopkins"].isna().all():
        return say("clusters.none.plain")
    last = tests.sort_values("round", kind="stable").iloc[-1]
    return say(
        "clusters.none.tests",
        tests=len(tests),
        passed=int(tests["passed"].sum()) if "passed" in tests else 0,
        needed=int(tables.option("clustering.confirmations", 1)),
        p=float(last["hopkins_p"]),
        silhouette=float(last.get("silhouette", float("nan"))),
    )


def _agreement(tables: RunTables) -> list[Say]:
    facts = tables.summary.get("agreement_with_planted_groups") or {}
    index = facts.get("adjusted_rand_index")
    return [] if index is None else [say("clusters.planted", index=float(index))]
