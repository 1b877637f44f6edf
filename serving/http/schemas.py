"""Requests and answers of the API. The request model is made from the portfolio's contract."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    Strict,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from creditrisk_assets.portfolio.contract import Code, Portfolio, canonical_name
from creditrisk_assets.portfolio.contract import Field as ContractField
from creditrisk_assets.portfolio.identifiers import LONGEST_IDENTIFIER, identifier_of

IDENTIFIER_TEXT = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_IDENTIFIER,
    "pattern": r"^[^\p{C}\p{Z}]+( +[^\p{C}\p{Z}]+)*$",
}
"""Printable characters without leading or trailing spaces."""

PLAIN_IDENTIFIER = r"^[!#-*,\-/-~]([ !#-*,\-/-~]*[!#-*,\-/-~])?$"
"""ASCII without leading or trailing spaces, and without the signs that `identifier_of` handles."""


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
    """The model of `/predict`'s body: one customer, with field names in any spelling that a file's
    header may have.

    Args:
        portfolio: gives contract and example.
    """
    fields: dict[str, Any] = {field.name: _request_field(field) for field in portfolio.fields}
    fields[portfolio.identifier] = _identifier_field()
    names = frozenset(fields)

    class AnySpelling(_Request):
        @model_validator(mode="before")
        @classmethod
        def respelt(cls, record: Any) -> Any:
            return contract_spelling(record, names)

    model = create_model("Customer", __base__=AnySpelling, __doc__="One customer record.", **fields)
    if portfolio.example:
        model.model_config["json_schema_extra"] = {"examples": [dict(portfolio.example)]}
    return model


def contract_spelling(record: Any, names: frozenset[str]) -> Any:
    """A record with its names (`Loan.Amount`, `LOAN AMOUNT`) in the contract's spelling, by the
    rule for a file's header. Values that are no objects are returned unchanged, for the model to
    refuse.

    Args:
        record: parsed JSON.
        names: the contract's.

    Raises:
        ValueError: if two names mean the same field.
    """
    if not isinstance(record, dict) or record.keys() <= names:
        return record
    spelt: dict[Any, list[Any]] = {}
    for name in record:
        canonical = canonical_name(name) if isinstance(name, str) and name not in names else name
        spelt.setdefault(canonical if canonical in names else name, []).append(name)
    for name, spellings in spelt.items():
        if len(spellings) > 1:
            raise ValueError(
                f"{name} stands twice, as {' and '.join(map(repr, spellings))}; valid: once"
            )
    return {name: record[spellings[0]] for name, spellings in spelt.items()}


class RecordReader:
    """Turns a record of parsed JSON into values by field, in the contract's order, and the
    identifier if there is one.

    Most clients use lower-case names and whole numbers. Their records are read without a Python
    call for each field; all others are read again by the request model, which decides.

    Args:
        portfolio: gives the contract.
        model: the request model.
    """

    def __init__(self, portfolio: Portfolio, model: type[BaseModel]) -> None:
        fields: dict[str, Any] = {field.name: _exact_field(field) for field in portfolio.fields}
        plain = Annotated[
            str, Strict(), Field(max_length=LONGEST_IDENTIFIER, pattern=PLAIN_IDENTIFIER)
        ]
        fields[portfolio.identifier] = (plain | None, None)
        exact = create_model("Exact", __base__=_Request, **fields)
        self._exact = exact.__pydantic_validator__.validate_python
        self._any = model.__pydantic_validator__.validate_python
        self._identifier = portfolio.identifier

    def __call__(self, record: Any) -> dict[str, Any]:
        """The values of a record.

        Raises:
            pydantic.ValidationError: if it does not satisfy the contract.
        """
        try:
            values: dict[str, Any] = self._exact(record).__dict__
        except ValidationError:
            values = self._any(record).__dict__
        if values[self._identifier] is None:
            del values[self._identifier]
        return values


def _exact_field(field: ContractField) -> tuple[Any, Any]:
    values: Any
    if field.codes is not None:
        values = (
            Literal[tuple(field.codes)]
            if field.is_text
            else Annotated[int, GetPydanticSchema(_strict_code(field.codes))]
        )
    elif field.decimal:
        values = Annotated[
            float, Strict(), Field(ge=field.minimum, le=field.maximum, allow_inf_nan=False)
        ]
    else:
        values = Annotated[int, Strict(), Field(ge=field.minimum, le=field.maximum)]
    return (values, ...) if field.required else (values | None, None)


def _strict_code(codes: Iterable[Code]) -> Callable[[Any, GetCoreSchemaHandler], CoreSchema]:
    """A code as a whole number. A literal alone would accept false for 0, its equal in Python."""
    known = core_schema.chain_schema(
        [core_schema.int_schema(strict=True), core_schema.literal_schema(list(codes))]
    )
    return lambda _type, _handler: known


def _identifier_field() -> tuple[Any, Any]:
    documented = WithJsonSchema({"anyOf": [IDENTIFIER_TEXT, {"type": "integer"}]})
    identifier = Annotated[
        str,
        BeforeValidator(_identifier),
        Field(min_length=1, max_length=LONGEST_IDENTIFIER),
        documented,
    ]
    meaning = (
        "Your identifier of the customer, which the outcome refers to; by default the decision's "
        "id."
    )
    return identifier | None, Field(default=None, description=meaning)


def _identifier(value: object) -> object:
    """7, 7.0 and "7" are the same customer, as in files."""
    if not isinstance(value, int | float | str):
        return value
    if isinstance(value, str) and value != value.strip():
        raise ValueError("has spaces around it")
    identifier = identifier_of(value)
    if not identifier:
        raise ValueError("is empty")
    if len(identifier) > LONGEST_IDENTIFIER:
        raise ValueError(f"has {len(identifier):,} digits")
    return identifier


def _request_field(field: ContractField) -> tuple[Any, Any]:
    meaning = f"{field.description}{f', {field.unit}' if field.unit else ''}"
    settings: dict[str, Any] = {}
    values: Any
    if field.codes is not None:
        known = Literal[tuple(field.codes)]  # type: ignore[valid-type]
        values = known if field.is_text else Annotated[known, BeforeValidator(_whole_number)]
        meaning += ": " + "; ".join(f"{code} = {text}" for code, text in field.codes.items())
    else:
        number, read = (float, _number) if field.decimal else (int, _whole_number)
        limits = Field(
            ge=field.minimum, le=field.maximum, allow_inf_nan=False if field.decimal else None
        )
        values = Annotated[
            number, limits, BeforeValidator(read)
        ]  # limits inside, or the document does not name them
    if not field.required:
        values, settings["default"] = values | None, None
    return values, Field(description=meaning, **settings)


class Model(BaseModel):
    """The model of an answer."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(description="Version of the registered model.")
    bundle_sha256: str = Field(
        description="Hash over the graph, the manifest and the golden requests."
    )


class ReasonGiven(BaseModel):
    """A reason for the risk."""

    code: str = Field(description="Stable code of the reason.")
    text: str = Field(description="Text for the customer.")


class Answer(BaseModel):
    """The decision on one customer."""

    prediction: int = Field(
        description="1 = default, if the probability is at or above the cut-off."
    )
    default_probability: float = Field(description="PD: probability of default in the next month.")
    score: float = Field(
        description="Points; higher is safer: 600 at odds of 50:1, 20 more for each doubling."
    )
    reasons: list[ReasonGiven] = Field(
        description="Up to four reasons that raise the risk, compared with a customer just under "
        "the cut-off, largest first."
    )


class PredictResponse(Answer, Model):
    """The decision on one customer and its model. It is in the decision log."""

    decision_id: str = Field(
        description="Id of the decision for `GET /decisions/{id}` and `creditrisk replay`."
    )
    cut_off: float = Field(description="PD from which the prediction is 1.")
    degraded: bool = Field(
        description="The champion cannot be loaded, so its fallback scorecard has decided."
    )


class FieldChanged(BaseModel):
    """A field of the record, its given value, and the reference profile's value; null if empty."""

    field: str
    given: int | float | str | None
    instead: int | float | str | None


class Alternative(BaseModel):
    """The answer on the same customer with some fields changed."""

    prediction: int
    default_probability: float
    score: float
    changes: tuple[FieldChanged, ...] = Field(
        description="The changed fields; all others have their given values."
    )


class ReasonTried(ReasonGiven):
    """A reason for the risk, and the effect of changing its fields."""

    instead: Alternative | None = Field(
        description="The answer if only the fields of this reason had the values of the reference "
        "profile. A field is only changed in the direction that helps, such as a larger payment; "
        "null if no such change lowers the PD."
    )


class WhatIfResponse(Model):
    """The champion's answer in a trial. It is no decision: it is not logged and has no id."""

    prediction: int = Field(
        description="1 = default, if the probability is at or above the cut-off."
    )
    default_probability: float = Field(description="PD: probability of default in the next month.")
    score: float = Field(description="Points; higher is safer.")
    cut_off: float = Field(description="PD from which the prediction is 1.")
    reasons: tuple[ReasonTried, ...] = Field(
        description="Up to four reasons that raise the risk, largest first."
    )
    together: Alternative | None = Field(
        description="The answer with the changes of all reasons together; null if fewer than two "
        "reasons have changes."
    )
    note: Literal["a trial, not a decision: nothing was logged"] = (
        "a trial, not a decision: nothing was logged"
    )


class RowRefused(BaseModel):
    """A row of a batch without a decision."""

    row: int = Field(description="Its number in the batch, from 0.")
    problems: list[dict[str, Any]] = Field(
        description="All its problems: field, value, problem, valid values."
    )


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Ready(Model):
    """A champion, or its fallback (`degraded`), is loaded. `problem` has the reason if the champion
    in force cannot be loaded.
    """

    status: Literal["ready"] = "ready"
    degraded: bool
    runtime: str = Field(
        description="`compiled code`, or `onnxruntime` and why; both decide with the same bits."
    )
    problem: str | None = None


class ModelInfo(Model):
    """The champion, the reason for it, and its held-out figures."""

    degraded: bool
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
