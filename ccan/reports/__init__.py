"""What is found about a model as a folder of figures and numbers, and one page that needs nothing else."""

from ccan.reports.case import CaseStudy, study_case
from ccan.reports.whole import write_diagnosis, write_explanations

__all__ = ["CaseStudy", "study_case", "write_diagnosis", "write_explanations"]
