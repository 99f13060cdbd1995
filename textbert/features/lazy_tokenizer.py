"""A BertTokenizer that is quickly pickled, for programs that send one to another process with each text."""

import io
import pickle
from collections import OrderedDict
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

from pytorch_pretrained_bert.tokenization import BertTokenizer

VOCABULARIES = ("vocab", "ids_to_tokens")  # attributes of a BertTokenizer: from token to id, and from id to token


class PackedState(NamedTuple):
    """The attributes of a tokenizer as bytes."""

    tokens: bytes  # in the order of their ids, one a line
    attributes: bytes  # a pickle, which refers to the two vocabularies by name


class LazyTokenizer(BertTokenizer):
    """A BertTokenizer whose copies, made by pickle, read their vocabulary when it is first needed."""

    def __reduce__(self) -> tuple:
        attributes = self.__dict__
        # a copy that was never used still is what it was made from
        return _unpickle, (attributes["_packed"] if attributes.keys() == {"_packed"} else _pack(self),)

    def __getattr__(self, name: str) -> Any:
        """Unpack a copy; Python calls this for an attribute that it does not find."""
        if not name.startswith("__"):
            self.unpack()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def unpack(self) -> None:
        """Set the attributes of a copy, except for those that were set in the meantime."""
        with _unpack_lock:
            if packed := self.__dict__.get("_packed"):
                state = _unpack(packed) | self.__dict__
                del state["_packed"]
                self.__dict__ = state


_unpack_lock = Lock()  # of all copies: unpacking takes milliseconds


class _Pickler(pickle.Pickler):
    names: dict[int, str]  # from the id of an object to its name

    def persistent_id(self, obj: Any) -> str | None:
        """Return the name under which an object is pickled, None for its content."""
        return self.names.get(id(obj))


class _Unpickler(pickle.Unpickler):
    objects: dict[str, Any]

    def persistent_load(self, pid: str) -> Any:
        """Return the object of a name."""
        return self.objects[pid]


def _pack(tokenizer: LazyTokenizer) -> PackedState:
    vocabularies = [getattr(tokenizer, name) for name in VOCABULARIES]
    # as a dict, an OrderedDict is read in a tenth of the time
    tokens, ids, other_ids, other_tokens = (list(f(v)) for v in vocabularies for f in (dict.keys, dict.values))
    text = "\n".join(tokens)
    # otherwise the user has edited a vocabulary
    is_regular = {type(vocabulary) for vocabulary in vocabularies} == {OrderedDict} and (
        ids == other_ids == list(range(len(ids))) and tokens == other_tokens and text.count("\n") == len(ids) - 1
    )
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=4)
    pickler.names = dict(zip(map(id, vocabularies), VOCABULARIES)) if is_regular else {}
    pickler.dump(vars(tokenizer))
    return PackedState(text.encode("utf-8", "surrogatepass") if is_regular else b"", file.getvalue())


def _unpack(packed: PackedState) -> dict[str, Any]:
    tokens = packed.tokens.decode("utf-8", "surrogatepass").split("\n")
    unpickler = _Unpickler(io.BytesIO(packed.attributes))
    tokens_by_id = OrderedDict(enumerate(tokens))
    unpickler.objects = dict(zip(VOCABULARIES, (OrderedDict(zip(tokens, tokens_by_id)), tokens_by_id)))
    return unpickler.load()


def _unpickle(packed: PackedState) -> LazyTokenizer:
    tokenizer = LazyTokenizer.__new__(LazyTokenizer)
    tokenizer._packed = packed
    return tokenizer


@lru_cache(maxsize=2)
def _make_twin(packed: PackedState) -> LazyTokenizer:
    twin = _unpickle(packed)
    twin.unpack()
    return twin


def get_twin(tokenizer: BertTokenizer) -> BertTokenizer:
    """Return a tokenizer equal to this one, which must not be changed: the same for all unused copies of one pickle.

    What is not such a copy is returned itself.
    """
    attributes = getattr(tokenizer, "__dict__", {})
    return _make_twin(attributes["_packed"]) if attributes.keys() == {"_packed"} else tokenizer
