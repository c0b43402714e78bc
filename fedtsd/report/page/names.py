"""What methods and settings are called on the page, and how a method is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedtsd.report.dealing import Part, partition_label, parts
from fedtsd.report.page.answer import Roles
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from fedtsd.report.skew import telling

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
        """The name of a setting in the page's language, with its measured skew."""
        if setting is None or not (runs := self.results.find(setting=setting)):
            return setting or ""
        told = telling(self.results.skews[setting], runs[0].config)
        if not told:
            return self.plain(setting)
        measured = [self.words(f"skew.{key}", value=value) for key, value in told.items()]
        listed = self.words.texts["unit.comma"].join(measured)
        return self.words("skew.beside", name=self.plain(setting), measured=listed)

    def plain(self, setting: str) -> str:
        """The name alone."""
        config = self.results.find(setting=setting)[0].config
        known = partition_label(config)
        return setting.replace(known, self.dealt(config)) if known else setting

    def dealt(self, config: Mapping[str, Any]) -> str:
        """What `partition_label` says of a config, in the page's language."""
        return self.words.texts["unit.comma"].join(map(self._part, parts(config)))

    def _part(self, part: Part) -> str:
        key = f"deal.{part.key}"
        text = self.words(key, **part.values) if key in self.words.texts else part.key
        if part.groups is None:
            return text
        return self.words("deal.in_groups", what=text, groups=part.groups)
