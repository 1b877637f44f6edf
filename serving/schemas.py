"""What the API takes and gives. The request is made from the portfolio's contract."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from creditrisk_assets.portfolio.contract import Field as ContractField
from creditrisk_assets.portfolio.contract import Portfolio


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def _number(value: object) -> object:
    """JSON numbers only: "20000" and true are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {value!r:.60}")
    return value


def _whole_number(value: object) -> object:
    """20000 and 20000.0 are the same."""
    number = _number(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


def request_model(portfolio: Portfolio) -> type[BaseModel]:
    """The body of `/predict`: one customer, each field by its lower-case name or the upper-case one.

    Args:
        portfolio: whose contract and example it is.
    """
    fields: dict[str, Any] = {field.name: _request_field(field) for field in portfolio.fields}
    model = create_model("Customer", __base__=_Request, __doc__="One customer record.", **fields)
    if portfolio.example:
        model.model_config["json_schema_extra"] = {"examples": [dict(portfolio.example)]}
    return model


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    records: list[Any]


def batch_request_model(customer: type[BaseModel], rows_limit: int) -> type[_Batch]:
    """The body of `/predict/batch`: between one record and `rows_limit`."""
    records = Annotated[list[customer], Field(min_length=1, max_length=rows_limit)]  # type: ignore[valid-type]
    return create_model("Batch", __base__=_Batch, __doc__="Customer records.", records=(records, ...))


def _request_field(field: ContractField) -> tuple[Any, Any]:
    meaning = f"{field.description}{f', {field.unit}' if field.unit else ''}"
    settings: dict[str, Any] = {"validation_alias": AliasChoices(field.name, field.name.upper())}
    values: Any
    if field.codes is not None:
        known = Literal[tuple(field.codes)]  # type: ignore[valid-type]
        values = known if field.is_text else Annotated[known, BeforeValidator(_whole_number)]
        meaning += ": " + "; ".join(f"{code} = {text}" for code, text in field.codes.items())
    else:
        number = Annotated[float, BeforeValidator(_number)] if field.decimal else Annotated[int, BeforeValidator(_whole_number)]
        values = Annotated[number, Field(ge=field.minimum, le=field.maximum, allow_inf_nan=False if field.decimal else None)]
    if not field.required:
        values, settings["default"] = values | None, None
    return values, Field(description=meaning, **settings)


class Model(BaseModel):
    """Which model answered."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(description="Version of the registered model.")
    bundle_sha256: str = Field(description="Hash over the graph, the manifest and the golden requests that decided.")


class ReasonGiven(BaseModel):
    """One reason for the risk."""

    code: str = Field(description="Stable code of the reason.")
    text: str = Field(description="What the customer is told.")


class Answer(BaseModel):
    """The decision on one customer."""

    prediction: int = Field(description="1 = default, where the probability is at or above the cut-off.")
    default_probability: float = Field(description="PD: probability of default in the next month.")
    score: float = Field(description="Points; higher is safer: 600 at odds of 50:1, 20 more for each doubling.")
    reasons: list[ReasonGiven] = Field(
        description="Up to four things that raise the risk against a customer just good enough to be approved, the largest first."
    )


class PredictResponse(Answer, Model):
    """The decision on one customer and which model made it."""

    cut_off: float = Field(description="PD from which the prediction is 1.")


class BatchResponse(Model):
    """Decisions in the order of the records, all by the same model."""

    cut_off: float
    predictions: list[Answer]


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Ready(Model):
    """A champion is loaded. `problem` says why a newer one could not be, if so."""

    status: Literal["ready"] = "ready"
    problem: str | None = None


class ModelInfo(Model):
    """What the champion is, why it is champion, and what it showed on held-out rows."""

    mlflow_uri: str
    verdict: str
    reason: str
    portfolio: str
    cut_off: float
    scaling: dict[str, float]
    inputs: list[str]
    features: list[str]
    not_used: list[str]
    training: dict[str, Any]
    metrics: dict[str, float]
