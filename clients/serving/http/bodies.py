"""What may be asked and what is answered: the whole of the API's types and bounds."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clients.serving.events import MAX_EVENTS, MAX_ID_BYTES, MAX_KIND_BYTES, MAX_QUERY_BYTES
from clients.serving.http.refusals import CODES
from fedrec.config_serving import ServingConfig

MAX_K = 100
MAX_PAST = 1_000
MAX_IN_STOCK = 10_000
MAX_CATEGORIES = 200
_DEFAULTS = ServingConfig()

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
User = Annotated[Id, Field(description="a person of the store, as the shop calls them")]
Past = Annotated[
    list[Id], Field(max_length=MAX_PAST, description="item ids, oldest first, in place of a person of the store")
]
ItemsWanted = Annotated[int, Field(ge=1, le=MAX_K, description="items, at most")]
Price = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_BYTES)]


class Body(BaseModel):
    """Knows no other fields, and takes no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FilterBody(Body):
    """What may be offered; what is left out lets everything pass."""

    category: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    min_price: Price | None = None
    max_price: Price | None = None
    in_stock: Annotated[list[Id], Field(max_length=MAX_IN_STOCK)] | None = None
    hide_bought: bool = False


class _Asking(Body):
    """Somebody of the store, or a past, or nobody in particular."""

    user: User | None = None
    history: Past | None = None
    personalized: bool = Field(True, description="false: the list that is the same for all; nobody's past is read")
    scores: bool = Field(False, description="raw scores and their parts too; needs the scope debug")
    details: bool = Field(False, description="category and price of each item too, where the catalogue knows them")

    @model_validator(mode="after")
    def _one_past(self) -> Self:
        if self.user is not None and self.history is not None:
            raise ValueError("user and history: give one of them")
        return self


class RecommendBody(_Asking):
    """Which list."""

    k: ItemsWanted = _DEFAULTS.k
    filters: FilterBody = FilterBody()
    diversity: Annotated[float, Field(ge=0, le=1)] = _DEFAULTS.diversity
    reasons: bool = Field(False, description="say why each item is there")


class SearchBody(_Asking):
    """What is looked for, and for whom it is put in order."""

    query: Query
    k: ItemsWanted = _DEFAULTS.k
    filters: FilterBody = FilterBody()


class ExplainBody(_Asking):
    """Which item."""

    item: Id


class EventBody(Body):
    """Somebody did something with an item."""

    user: User
    item: Id
    kind: Annotated[str, Field(min_length=1, max_length=MAX_KIND_BYTES)] = "view"
    timestamp: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = Field(
        None, description="seconds since 1970; now when absent"
    )
    query: Query | None = None
    event_id: Id | None = Field(None, description="your own; an event that comes twice with it counts once")


class EventsBody(Body):
    """All of them are taken, or none."""

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_EVENTS)]
    keep_unknown: bool = Field(False, description="also keep events of items that the model does not know")


class Item(BaseModel):
    """An item of a list."""

    item_id: str
    title: str
    category: str | None = None
    price: float | None = None
    reason: str | None = None
    found_by: list[str] | None = Field(None, description="of a search: words, meaning, person")
    score: float | None = None
    parts: dict[str, float] | None = None


class ItemsAnswer(BaseModel):
    """A list, best first."""

    model: str = Field(description="version of the model that made it")
    personalized: bool = Field(description="whether somebody's past had a part in it")
    items: list[Item]


class CauseAnswer(BaseModel):
    """A past event and what it does for an item; ``drop`` is what the score loses without it."""

    item_id: str
    title: str
    effect: Literal["raises", "lowers", "none"]
    drop: float | None = None


class ExplainAnswer(BaseModel):
    """One item's place, taken apart; the causes with the largest drop first."""

    model: str
    personalized: bool
    item: Item
    causes: list[CauseAnswer]


class EventsAnswer(BaseModel):
    """What became of events, on disk now: new ones, ones known by ``event_id``, dropped ones of forgotten people."""

    added: int
    repeated: int
    forgotten: int


class ForgottenAnswer(BaseModel):
    """Somebody is gone: how many events of theirs were deleted, and when, in seconds since 1970."""

    events: int
    at: int


class PriceRange(BaseModel):
    """The lowest and the highest price, in the catalogue's currency."""

    lowest: float
    highest: float


class CatalogueAnswer(BaseModel):
    """What the catalogue can be filtered by; a field is absent where it cannot."""

    items: int
    categories: list[str] | None = Field(None, description=f"sorted; the {MAX_CATEGORIES} largest, at most")
    prices: PriceRange | None = None


class StatementAnswer(BaseModel):
    """What was promised to the people whom the model learned from."""

    statement: str
    model: str
    items: int


class StateAnswer(BaseModel):
    """Alive, or ready."""

    state: Literal["ok"]


class ErrorBody(BaseModel):
    """Why not: a fixed word, and a line for people."""

    code: Annotated[str, Field(json_schema_extra={"enum": list(CODES)})]
    message: str


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody
