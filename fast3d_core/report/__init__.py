"""The comparison of evaluation runs: `build_report` makes it as plain data, the renderers write it down."""

from fast3d_core.report.build import Difference, Estimate, Report, ReportRow, ScoreEstimate, build_report
from fast3d_core.report.render import to_csv, to_json, to_markdown
from fast3d_core.report.runs import HOW_TO_COMPLETE, Run, find_run, list_runs, load_runs

__all__ = [
    "HOW_TO_COMPLETE",
    "Difference",
    "Estimate",
    "Report",
    "ReportRow",
    "Run",
    "ScoreEstimate",
    "build_report",
    "find_run",
    "list_runs",
    "load_runs",
    "to_csv",
    "to_json",
    "to_markdown",
]
