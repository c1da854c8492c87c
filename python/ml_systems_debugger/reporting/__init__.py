"""Reports as text, JSON, Markdown, HTML, SARIF, JUnit XML, CI annotations; no computation."""

from ._verdicts import VerdictReporter
from .github import GithubReporter
from .html import HTMLReporter
from .json import JsonReporter, json_schema, overall_status
from .junit import JUnitReporter
from .markdown import MarkdownReporter
from .reporter import Reporter, ReportFormat, render_many
from .sarif import SarifReporter
from .summary import summary_text
from .text import TextReporter

__all__ = [
    "GithubReporter",
    "HTMLReporter",
    "JUnitReporter",
    "JsonReporter",
    "MarkdownReporter",
    "ReportFormat",
    "Reporter",
    "SarifReporter",
    "TextReporter",
    "VerdictReporter",
    "json_schema",
    "overall_status",
    "render_many",
    "summary_text",
]
