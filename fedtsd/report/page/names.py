"""What methods and settings are called on the page, and how a method is drawn."""

import re
from dataclasses import dataclass

from fedtsd.report.page.answer import Roles
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from fedtsd.report.style import partition_label

OTHER_KINDS = 4  # colours in `style.css` for methods that play no role


@dataclass(frozen=True)
class Names:
    """Names in the page's language."""

    words: Words
    results: Results
    roles: Roles

    def method(self, method: str) -> str:
        """The name of a method; training alone is said in words where one method does it."""
        alone = [m for m, family in self.results.families.items() if family == "alone"]
        return self.words("method.alone") if alone == [method] else self.results.labels[method]

    def kind(self, method: str) -> str:
        """The class that gives a method its colour and dashes."""
        roles = {self.roles.focus: "focus", self.roles.alone: "alone", self.roles.common: "common"}
        others = [m for m in self.results.methods if m not in roles]
        return roles.get(method) or f"other{others.index(method) % OTHER_KINDS}"

    def setting(self, setting: str | None) -> str:
        """The name of a setting, its partition said in the page's language."""
        if setting is None or not (runs := self.results.find(setting=setting)):
            return setting or ""
        known = partition_label(runs[0].config)
        return setting.replace(known, self.partition(known)) if known else setting

    def partition(self, label: str) -> str:
        """A label of `partition_label` in the page's language; others stay as they are."""
        for key, pattern in (
            ("groups", r"(\d+) label groups"),
            ("classes", r"(\d+) classes per client"),
        ):
            if found := re.fullmatch(pattern, label):
                return self.words(f"partition.{key}", n=int(found.group(1)))
        return label
