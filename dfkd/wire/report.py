"""The part of report.json that the client reads. The file itself is described by `dfkd_core.report`."""

from pydantic import Field

from dfkd.wire.model import Answer


class AgreementView(Answer):
    """The agreement in a report, measured on the audit set. The audit set had no part in choosing the student."""

    value: float = Field(description="Share of images to which student and teacher give the same class.")
    interval: tuple[float, float] = Field(description="Exact confidence interval of `value`.")
    confidence: float = Field(description="Level of the interval.")
    n: int = Field(description="Number of images in the audit set.")


class ReportView(Answer):
    """The fields of report.json that the client reads."""

    agreement: AgreementView
