"""The report page for a manager and an engineer: one HTML file, in English or Japanese."""

from fedtsd.report.page.build import build_page, write_page
from fedtsd.report.page.words import LANGUAGES

__all__ = ["LANGUAGES", "build_page", "write_page"]
