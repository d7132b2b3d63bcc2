"""The part of report.json that the client reads. The file itself is described by `dfkd_core.report`."""

from pydantic import Field

from dfkd.wire.model import Answer


class AgreementView(Answer):
    """The agreement in a report: measured on the audit set, which chose nothing."""

    value: float = Field(description="Share of images on which student and teacher decide alike.")
    interval: tuple[float, float] = Field(description="Exact confidence interval of `value`.")
    confidence: float = Field(description="Level of the interval.")
    n: int = Field(description="Images.")


class ReportView(Answer):
    """What our client reads in report.json."""

    agreement: AgreementView
