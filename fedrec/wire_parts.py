"""The parts that Flower cuts a message into, checked before Flower puts them together again.

An array's part lists the chunks of its bytes, and may name one chunk any number of times: four megabytes then become
two gigabytes or any other number, in the memory of whoever reads them.
"""

import json
from collections.abc import Mapping

from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)

from fedrec.errors import WireError

MAX_WORDS_BYTES = 2**20  # of a part that holds names and numbers; with n arrays the longest has some 130 n


def check_parts(contents: Mapping[str, bytes], *, max_bytes: int) -> None:
    """Refuse a message that would be larger than ``max_bytes`` once it is put together.

    Args:
        contents: its parts by number, as they came.
        max_bytes: of all arrays together, each as often as it is named.

    Raises:
        WireError: it would be larger, or its parts are not what Flower writes.
    """
    total = 0
    for content in contents.values():
        try:
            kind, chunks, _ = get_object_head_values_from_object_content(content)
            if kind != ArrayChunk.__qualname__ and len(content) > MAX_WORDS_BYTES:
                raise WireError(f"message: a part without numbers of more than {MAX_WORDS_BYTES} bytes")
            if kind == Array.__qualname__:
                named = json.loads(get_object_body(content, Array))["arraychunk_ids"]
                total += sum(len(contents[chunks[index]]) for index in named)
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise WireError(f"message: cannot be read ({type(error).__name__})") from error
        if total > max_bytes:
            raise WireError(f"message: expected at most {max_bytes} bytes")
