"""What can be wrong with a run's spec.json and weights, in words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# What commands read of it, with the type that JSON gives; of a cross-validation there is no input_width.
IDENTITY = {"spec": dict, "features": list, "list": str, "classes": list, "part": str}
RESULT = {"kind": str, "videos": dict, "feature_specs": list}
WORDS = {dict: "a table", list: "a list", str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def not_a_run(data: Any) -> str:
    """What a spec.json is the spec of, where that is something else, and what to do; empty where nobody can tell."""
    if not isinstance(data, dict):
        return ""
    if "identity" not in data and {"spec", "digest", "format"} <= data.keys():
        return "it is a feature store; give the folder of a run here (`train-head` prints it), and the store with --features"
    identity = data.get("identity")
    if isinstance(identity, dict) and ("store" in identity or "folds" in identity):
        return "it is a run of `idt train`, whose SVMs score with `idt score`"
    return ""


def spec_problem(data: Any) -> str:
    """What of a run's spec.json is not as it was written; empty where nothing is."""
    if not isinstance(data, dict):
        return f"it holds {WORDS[type(data)]}, not a table"
    for name, wanted in (("identity", IDENTITY), ("result", RESULT)):
        part = data.get(name)
        if not isinstance(part, dict):
            return f"{name} is {WORDS[type(part)]}, not a table" if name in data else f"it has no {name}"
        for key, kind in wanted.items():
            if not isinstance(part.get(key), kind):
                return f"{name}.{key} is {WORDS[type(part[key])]}, not {WORDS[kind]}" if key in part else f"{name} has no {key}"
    if data["result"]["kind"] == "run" and type(data["result"].get("input_width")) is not int:
        return "result.input_width is no whole number"
    entries = data["identity"]["features"]
    if not all(isinstance(entry, dict) and {"name", "digest", "level"} <= entry.keys() for entry in entries):
        return "identity.features are not tables of name, digest and level"
    return ""


def misfit(head: "nn.Module", state: "Mapping[str, Tensor]") -> str:
    """The first tensor of ``state`` that is not the head's, or the other way round; empty where all fit."""
    own = head.state_dict()
    for name in sorted({*own, *state}):
        if name not in state:
            return f"they have no {name}"
        if name not in own:
            return f"the head has no {name}"
        if own[name].shape != state[name].shape:
            return f"{name} is {list(state[name].shape)}, and the head has {list(own[name].shape)}"
    return ""
