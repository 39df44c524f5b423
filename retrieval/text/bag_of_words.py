"""A text encoder without a network: words and letter n-grams of an archive's own text, reduced by SVD.

TF-IDF over words, word pairs and letter groups of three to five (which bridge inflections and misspellings), then a
truncated SVD. It is built on the text it will be used for, and written as arrays and JSON, never as a pickle.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.npz import numbers
from retr.index.json_fields import Fields, parse_json
from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

COMPONENTS = 512
# Up to so many texts a word counts that occurs once: a column of labels has few texts and few words.
SMALL = 1000

_KINDS: tuple[dict[str, Any], ...] = (
    {"ngram_range": (1, 2), "token_pattern": r"\w+", "max_features": 10_000},
    {"analyzer": "char_wb", "ngram_range": (3, 5), "max_features": 20_000},
)
_COMMON: dict[str, Any] = {"sublinear_tf": True, "lowercase": True, "strip_accents": "unicode"}


@dataclass(frozen=True)
class WordBag:
    """A fitted encoder.

    Attributes
    ----------
    vocabularies
        Terms of the words and of the letter groups, in the order of their columns.
    idf
        float32 ``(v,)``: inverse document frequency of all terms, words first.
    components
        float16 ``(v, dim)``, from terms to the reduced space; ``None`` where there are few terms.
    """

    vocabularies: tuple[tuple[str, ...], tuple[str, ...]]
    idf: NDArray[np.float32]
    components: NDArray[np.float16] | None

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return len(self.idf) if self.components is None else int(self.components.shape[1])

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Self:
        """Learn terms, weights and the reduction from texts."""
        with needed():
            import scipy.sparse
            from sklearn.decomposition import TruncatedSVD

        frequent = 2 if len(set(texts)) > SMALL else 1
        vectorizers = [_vectorizer(kind, min_df=frequent) for kind in _KINDS]
        counted = scipy.sparse.hstack([vectorizer.fit_transform(texts) for vectorizer in vectorizers]).tocsr()
        components = None
        if counted.shape[1] > COMPONENTS and counted.shape[0] > COMPONENTS:
            svd = TruncatedSVD(COMPONENTS, random_state=0).fit(counted)
            components = svd.components_.T.astype(np.float16)
        words, letters = (tuple(vectorizer.get_feature_names_out().tolist()) for vectorizer in vectorizers)
        idf = np.concatenate([vectorizer.idf_ for vectorizer in vectorizers]).astype(np.float32)
        return cls((words, letters), idf, components)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 ``(n, dim)``; zero for a text of which nothing is known."""
        with needed():
            import scipy.sparse

        found = scipy.sparse.hstack([one.transform(texts) for one in self._vectorizers]).tocsr()
        if self.components is None:
            dense: NDArray[np.float32] = found.toarray().astype(np.float32)
            return dense
        reduced: NDArray[np.float32] = np.asarray(found @ self._wide, dtype=np.float32)
        return reduced

    def known(self, text: str) -> tuple[float, list[str]]:
        """Return how much of a text is known: a share between 0 and 1, rare words counting more, and unknown words.

        >>> bag = WordBag.fit(["a red disc", "a pale disc"])
        >>> bag.known("a purple disc")[1]
        ['purple']
        """
        weights = self._word_weights
        unseen = max(weights.values(), default=1.0)
        words = [_plain(word) for word in re.findall(r"\w+", text.lower())]
        unknown = [word for word in dict.fromkeys(words) if word not in weights]
        total = sum(weights.get(word, unseen) for word in words)
        missing = sum(unseen for word in words if word not in weights)
        return (1 - missing / total if total else 0.0), unknown

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays for an ``.npz``."""
        terms = np.frombuffer(json.dumps(self.vocabularies).encode(), dtype=np.uint8)
        arrays: dict[str, NDArray[Any]] = {"terms": terms, "idf": self.idf}
        return arrays if self.components is None else {**arrays, "components": self.components}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_arrays` gave; ``ValueError`` or ``KeyError`` for anything else."""
        both = Fields({"terms": parse_json(arrays["terms"].tobytes())}).items("terms")
        words, letters = (Fields({"terms": terms}).texts("terms") for terms in both)
        if len(set(words)) < len(words) or len(set(letters)) < len(letters):
            raise ValueError("a term stands twice")
        idf = numbers(arrays, "idf", len(words) + len(letters))
        known = "components" in arrays
        components = numbers(arrays, "components", len(idf), None, kind=np.float16) if known else None
        return cls((words, letters), idf, components)

    @cached_property
    def _vectorizers(self) -> list[Any]:
        split = len(self.vocabularies[0])
        out = []
        for kind, terms, idf in zip(_KINDS, self.vocabularies, (self.idf[:split], self.idf[split:]), strict=True):
            vectorizer = _vectorizer({**kind, "max_features": None}, vocabulary=list(terms))
            vectorizer.idf_ = idf.astype(np.float64)
            out.append(vectorizer)
        return out

    @cached_property
    def _wide(self) -> NDArray[np.float32]:
        assert self.components is not None
        return self.components.astype(np.float32)

    @cached_property
    def _word_weights(self) -> dict[str, float]:
        words = self.vocabularies[0]
        return {word: float(idf) for word, idf in zip(words, self.idf, strict=False) if " " not in word}


def _vectorizer(kind: Mapping[str, Any], **options: Any) -> Any:
    with needed():
        from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**kind, **_COMMON, **options)


def _plain(word: str) -> str:
    with needed():
        from sklearn.feature_extraction.text import strip_accents_unicode

    plain: str = strip_accents_unicode(word)
    return plain
