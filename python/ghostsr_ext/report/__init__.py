"""One page that shows what a conversion has gained and what it has cost."""

from ghostsr_ext.report.page import write_report

__all__ = ["write_report"]
