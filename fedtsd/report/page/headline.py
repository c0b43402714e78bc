"""The answer in sentences: one for all settings, and a few for each."""

from collections.abc import Iterator

from fedtsd.report.page.answer import Verdict
from fedtsd.report.page.names import Names
from fedtsd.report.page.words import Say, say

WORTH_IT = ("gain", "either")


def overall(answers: list[Verdict]) -> str:
    """The answer in one word: its kind where all settings agree, else what is common to them."""
    kinds = {answer.kind for answer in answers}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds <= set(WORTH_IT):
        return "worth_it"
    return "mixed" if kinds & set(WORTH_IT) else "not_worth_it"


def headline(answers: list[Verdict], names: Names) -> Say:
    """The sentence at the top of the page."""
    roles, first = names.roles, answers[0]
    many = "_many" if len(answers) > 1 else ""
    return say(
        f"answer.{overall(answers)}{many}",
        method=names.method(roles.focus),
        common=names.method(roles.common) if roles.common else "",
        n=len(answers),
        gains=sum(answer.kind in WORTH_IT for answer in answers),
        clear=sum(answer.kind == "gain" for answer in answers),
        mean=first.alone.mean if first.alone else None,
        margin=first.alone.margin if first.alone else None,
    )


def advice(answers: list[Verdict], names: Names, few_seeds: int) -> Iterator[Say]:
    """What is missing for a better answer."""
    roles, whole = names.roles, overall(answers)
    if whole == "only_alone":
        yield say("answer.how_focus")
        return
    if whole == "no_alone":
        yield say("answer.how_alone", method=roles.focus.split(" ")[0])
    if roles.common is None and names.results.families[roles.focus] != "global":
        yield say("answer.how_common")
    counts = [len(answer.seeds) for answer in answers]
    if min(counts) < few_seeds and whole != "no_alone":
        key = "few_seeds" if min(counts) == max(counts) else "few_seeds_mixed"
        yield say(f"answer.{key}", seeds=min(counts), needed=few_seeds)


def finding(answer: Verdict, names: Names) -> Iterator[Say]:
    """What was found in one setting."""
    roles = names.roles
    focus = names.method(roles.focus)
    common = names.method(roles.common) if roles.common else ""
    alone, against = answer.alone, answer.common
    level = {(True, True): "both", (True, False): "alone", (False, True): "common"}
    yield say(
        f"answer.level.{level.get((alone is not None, against is not None), 'own')}",
        method=focus,
        mean=answer.mean,
        alone=float(alone.rows["theirs"].mean()) if alone else None,
        common=float(against.rows["theirs"].mean()) if against else None,
        name=common,
    )
    if alone:
        yield say(
            "answer.counts",
            of=len(alone.rows), sites=answer.num_sites, seeds=len(alone.by_seed),
            gaining=alone.gaining, losing=len(alone.losing), unclear=alone.unclear,
        )  # fmt: skip
        worst = alone.worst
        yield say(
            "answer.worst",
            client=int(worst["client"]), seed=int(worst["seed"]),
            gain=float(worst["gain"]), margin=float(worst["margin"]),
        )  # fmt: skip
        against_mean = alone.by_seed[alone.by_seed * alone.mean < 0]
        if len(against_mean):
            yield say("answer.not_every_seed", seeds=[int(str(s)) for s in against_mean.index])
    if against:
        key = f"answer.against_common.{against.outcome}"
        yield say(key, name=common, mean=against.mean, margin=against.margin)
    if answer.best not in (roles.focus, roles.common if against else None):
        yield say("answer.best", method=names.method(answer.best), mean=answer.best_mean)
