"""What search learned, and its folder: written whole or not at all, checked when read. Needs no torch."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from fedrec.drafts import whole_folder
from fedrec.errors import RunError
from fedrec.model.encoder import TextEncoder
from fedrec.runfolder import write_arrays, write_json

FORMAT = 1
ARRAYS, MANIFEST = "query-adapter.safetensors", "query-adapter.json"
_LONGEST_PROMISE = 2_000  # characters
NOT_PRIVATE = "NOT PRIVATE: trained without noise on people's queries; keep it where their events are"


@dataclass(frozen=True)
class LearnedQuery:
    """What search takes over from training.

    Attributes:
        down: A, (R, E) float32.
        up: B, (E, R) float32.
        words, meaning: weights of the two parts, >= 0.
        privacy: what is promised to the people it was trained on, in words.
    """

    down: np.ndarray
    up: np.ndarray
    words: float
    meaning: float
    privacy: str = NOT_PRIVATE

    def apply(self, query: np.ndarray) -> np.ndarray:
        """Turn a query's vector (E,) float32; its length stays."""
        turned = query + self.up @ (self.down @ query)
        length = float(np.linalg.norm(turned))
        return turned * np.float32(np.linalg.norm(query) / length) if length > 0 else turned


def save_learned(learned: LearnedQuery, folder: Path, *, encoder: TextEncoder) -> None:
    """Write what was learned.

    Args:
        folder: new.
        encoder: that it was trained beside.

    Raises:
        RunError: ``folder`` exists, or cannot be written.
    """
    mix = np.array([learned.words, learned.meaning], dtype=np.float64)
    with whole_folder(folder) as draft:
        write_arrays(draft / ARRAYS, {"down": learned.down, "up": learned.up, "mix": mix})
        about = {
            "format": FORMAT,
            "encoder": encoder.name,
            "encoder_digest": encoder.digest,
            "privacy": learned.privacy,
            "sha256": hashlib.sha256((draft / ARRAYS).read_bytes()).hexdigest(),
        }
        write_json(draft / MANIFEST, about)


def load_learned(folder: Path, encoder: TextEncoder) -> LearnedQuery:
    """Read what ``save_learned`` wrote, when all of it can be used with this encoder.

    Raises:
        RunError: missing, damaged, not finite, or trained beside another encoder.
    """
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        data = (folder / ARRAYS).read_bytes()
    except OSError as error:
        raise RunError(f"{folder}: not a query adapter: {error.strerror}; make one with fedrec tune-search") from None
    except ValueError:
        raise RunError(f"{folder / MANIFEST}: damaged; make it again with fedrec tune-search") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise RunError(f"{folder / MANIFEST}: of another version; make it again with fedrec tune-search")
    if hashlib.sha256(data).hexdigest() != about.get("sha256"):
        raise RunError(f"{folder / ARRAYS}: damaged: not the file that {MANIFEST} names; make it again")
    if about.get("encoder_digest") != encoder.digest:
        raise RunError(
            f"{folder}: trained beside encoder {str(about.get('encoder'))[:80]!r}, queries are read by "
            f"{encoder.name!r}; name that one with --encoder, or train again"
        )
    try:
        return replace(_checked(load(data), encoder.dimension), privacy=_words(about.get("privacy")))
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{folder / ARRAYS}: not a query adapter: {str(error).splitlines()[0]}") from None


def _words(privacy: object) -> str:
    """The promise, as one line that may be shown; ``ValueError`` where it is none."""
    if not isinstance(privacy, str) or not 0 < len(privacy) <= _LONGEST_PROMISE or not privacy.isprintable():
        raise ValueError("privacy: expected what is promised, in one line")
    return privacy


def _checked(arrays: dict[str, np.ndarray], dimension: int) -> LearnedQuery:
    """Refuse, as ``ValueError`` or ``KeyError``, what no training gives: a folder may come from somebody else."""
    down, up, mix = arrays["down"], arrays["up"], arrays["mix"]
    if down.ndim != 2 or down.shape[1] != dimension or up.shape != down.shape[::-1] or mix.shape != (2,):
        raise ValueError(f"arrays of shapes {down.shape}, {up.shape}, {mix.shape}; the encoder gives {dimension}")
    if (down.dtype, up.dtype, mix.dtype) != (np.float32, np.float32, np.float64):
        raise ValueError("arrays of other types than float32 and float64")
    if not all(np.isfinite(values).all() for values in (down, up, mix)):
        raise ValueError("a value is not finite")
    words, meaning = mix.tolist()
    if min(words, meaning) < 0 or words + meaning == 0:
        raise ValueError("weights of words and meaning: expected numbers >= 0, not both 0")
    return LearnedQuery(down, up, words, meaning)
