"""Full-text search by a shop's own Elasticsearch or OpenSearch, over the REST API that both share. Catalogue text only.

It gets the catalogue once, as words, and each query as words. What it answers is checked. Where it does not answer, or
answers too little, the local index does.

Source: https://www.elastic.co/guide/en/elasticsearch/reference/8.17/rest-apis.html and
https://docs.opensearch.org/latest/api-reference/ (create index, bulk, refresh, count, search)
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from clients.serving.elastic_link import EngineError, EngineLink
from clients.serving.fulltext import FIELDS, FullTextIndex
from clients.serving.queries import folded_words, singular, words_of
from clients.serving.search import Backend
from fedrec.config_search import SearchConfig
from fedrec.data.catalogue import Catalogue
from fedrec.errors import RunError

_FORMAT = "fedrec words 1"  # of the documents
_LARGEST_WINDOW = 10_000  # hits of one search: what both engines allow unless told otherwise
_BATCH = 1_000  # documents of one bulk request
_FUZZY = 0.3  # what a word near the one that was typed counts
_TEXT = {"type": "text", "analyzer": "whitespace", "index_options": "freqs"}
logger = logging.getLogger(__name__)


class ElasticIndex:
    """Finds items by their words, a ``Backend``. Threads may share one."""

    def __init__(
        self,
        link: EngineLink,
        local: FullTextIndex,
        catalogue: Catalogue,
        config: SearchConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use an engine, which gets the catalogue unless it has it.

        Args:
            local: of the same catalogue; answers where the engine cannot, and knows the spelling.

        Raises:
            RunError: the engine cannot be reached, refuses us, or does not take the catalogue.
        """
        self._link, self._local, self._items, self._config = link, local, len(catalogue), config or SearchConfig()
        self._name = f"fedrec-{catalogue.digest()[:32]}"
        self._clock, self._silent_until, self._lock = clock, -math.inf, threading.Lock()
        try:
            self._fill(catalogue)
        except EngineError as error:
            link.close()
            raise RunError(f"{link.url}: {error}; mend it, or leave --search-engine out") from None

    def search(self, query: str, *, most: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """Items that have the query's words, or words near them; as ``FullTextIndex.search``, ranked by the engine.

        The engine knows nothing of ``allowed``, which can be a million marks: more is asked for, and what is not
        allowed is dropped. Where ten thousand hits hold too few, the local index is asked.
        """
        words = folded_words(query[: self._config.longest_query])[: self._config.most_words]
        if not words or self._clock() < self._silent_until:
            return self._local.search(query, most=most, allowed=allowed) if words else []
        try:
            found = self._readings(words, most=most, allowed=allowed)
        except EngineError as error:
            self._fall_silent(error)
            found = None
        return self._local.search(query, most=most, allowed=allowed) if found is None else found

    def spelled(self, query: str) -> str:
        """As the local index has it: no query is sent for this."""
        return self._local.spelled(query)

    def _fall_silent(self, error: EngineError) -> None:
        """Ask no more for a while, so that not every query waits for what does not come."""
        with self._lock:
            self._silent_until = self._clock() + self._config.engine_rest_s
        logger.warning("search engine: %s; the local index answers for %g s", error, self._config.engine_rest_s)

    def _readings(self, words: list[str], *, most: int, allowed: np.ndarray | None) -> list[tuple[int, float]] | None:
        """Items with all words, then, where they are few, with some; the second never stand above the first."""
        found: list[tuple[int, float]] = []
        for least in dict.fromkeys((len(words), 1)):
            more = self._allowed_hits(query_of(words, least=least, config=self._config), most=most, allowed=allowed)
            if more is None:
                return None
            known = {item for item, _ in found}
            more = [(item, score) for item, score in more if item not in known]
            ceiling = min(1.0, found[-1][1] / more[0][1]) if found and more else 1.0
            found += [(item, score * ceiling) for item, score in more]
            if len(found) >= min(most, self._config.enough):
                break
        return found[:most]

    def _allowed_hits(self, query: dict, *, most: int, allowed: np.ndarray | None) -> list[tuple[int, float]] | None:
        """The best allowed hits, at most ``most``; None where the largest window holds too few of them."""
        size = min(most, _LARGEST_WINDOW)
        while True:
            hits = self._hits(query, size=size)
            kept = [(item, score) for item, score in hits if allowed is None or allowed[item]]
            if len(kept) >= most or len(hits) < size or allowed is None:
                return kept[:most]
            if size == _LARGEST_WINDOW:
                return None
            size = min(4 * size, _LARGEST_WINDOW)

    def _hits(self, query: dict, *, size: int) -> list[tuple[int, float]]:
        """What the engine finds, best first, of equals the first in the catalogue."""
        body = {"size": size, "_source": False, "track_total_hits": False, "query": query}
        answer = self._link.ask("POST", f"/{self._name}/_search?request_cache=false", body)
        try:
            found = [(int(hit["_id"]), float(hit["_score"])) for hit in answer["hits"]["hits"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise EngineError("answers no list of hits") from None
        if len(found) > size or not all(0 <= item < self._items and 0 < score < math.inf for item, score in found):
            raise EngineError("answers hits that are not of this catalogue")
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))

    def _fill(self, catalogue: Catalogue) -> None:
        """Send the catalogue unless it is there whole. Twice does no harm: a document's id is its item's position."""
        made = {
            "settings": {"number_of_shards": 1, "similarity": {"default": {"type": "BM25", "k1": 1.2, "b": 0.75}}},
            "mappings": {"dynamic": "strict", "_meta": {"format": _FORMAT}, "properties": dict.fromkeys(FIELDS, _TEXT)},
        }
        self._link.ask("PUT", f"/{self._name}", made, allow="resource_already_exists_exception")
        if self._count() == self._items:
            return
        for lines in _bulks(catalogue):
            if self._link.ask("POST", f"/{self._name}/_bulk", lines, timeout_s=60.0).get("errors") is not False:
                raise EngineError("does not take the catalogue")
        self._link.ask("POST", f"/{self._name}/_refresh", timeout_s=60.0)
        if (count := self._count()) != self._items:
            raise EngineError(f"has {count} of {self._items} items")

    def _count(self) -> object:
        return self._link.ask("GET", f"/{self._name}/_count").get("count")


def words_backend(catalogue: Catalogue, local: FullTextIndex, *, engine: str | None) -> Backend:
    """The engine at an address, with the local index behind it; the local index alone where none is named.

    Raises:
        ConfigError: the address is none, or would be unsafe.
        RunError: the engine cannot be used.
    """
    if engine is None:
        return local
    config = SearchConfig()
    return ElasticIndex(EngineLink(engine, timeout_s=config.engine_s), local, catalogue, config)


def query_of(words: list[str], *, least: int, config: SearchConfig) -> dict:
    """A query in the engines' language: at least so many of the words, each in any field.

    A word counts as typed, or less as one near it: a slip from 4 letters on, two from 8. The last may be a beginning.
    """
    weights = (config.title_weight, config.brand_weight, config.category_weight, config.description_weight)
    fields = [f"{name}^{weight:g}" for name, weight in zip(FIELDS, weights, strict=True)]
    asked = []
    for at, word in enumerate(words):
        match: dict[str, object] = {"query": singular(word), "fields": fields, "type": "most_fields"}
        ways: list[dict] = [{"multi_match": match}]
        if word.isalpha():  # the product with the next number is another product
            ways.append({"multi_match": match | {"fuzziness": "AUTO:4,8", "boost": _FUZZY}})
        if at == len(words) - 1 and len(word) > 1:
            ways.append({"multi_match": match | {"type": "bool_prefix", "boost": _FUZZY}})
        asked.append({"dis_max": {"queries": ways}})
    return {"bool": {"should": asked, "minimum_should_match": least}}


def _bulks(catalogue: Catalogue) -> Iterator[list[dict]]:
    """The catalogue as bulk requests: an action and a document in turn."""
    columns = [catalogue.titles, *(catalogue.text_column(name) for name in FIELDS[1:])]
    lines: list[dict] = []
    for item, texts in enumerate(zip(*columns, strict=True)):
        words = (" ".join(words_of(text)) for text in texts)
        lines += [{"index": {"_id": str(item)}}, dict(zip(FIELDS, words, strict=True))]
        if len(lines) == 2 * _BATCH:
            yield lines
            lines = []
    if lines:
        yield lines
