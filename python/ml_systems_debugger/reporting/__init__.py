"""Reports as text, JSON and Markdown; no computation."""

from .json import JsonReporter, json_schema, overall_status
from .markdown import MarkdownReporter
from .reporter import Reporter, ReportFormat, render_many
from .summary import summary_text
from .text import TextReporter

__all__ = [
    "JsonReporter",
    "MarkdownReporter",
    "ReportFormat",
    "Reporter",
    "TextReporter",
    "json_schema",
    "overall_status",
    "render_many",
    "summary_text",
]
