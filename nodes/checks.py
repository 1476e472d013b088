"""Checks of inputs before the graph runs, with one error on the input that is wrong.

ComfyUI shows the sentence that `validate_inputs` returns once for each argument in its signature.
Here the signature depends on the submitted graph and names only the inputs that are wrong. ComfyUI
checks the ranges and choices of all others itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from inspect import Parameter, Signature, signature
from types import MethodType
from typing import Any, ClassVar, NamedTuple

from comfy_api.latest import io

from ..pipeline import AnimateDiffV2VError
from . import host

Nodes = Mapping[str, Mapping[str, Any]]
Problems = dict[str, "Problem"]

# ComfyUI converts values only after it has asked for the signature.
_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "int | None": int,
    "float | None": float,
    "str | None": str,
    "bool | None": bool,
}
# The submitted graph, and the problems in it by node, for each class that was asked for.
_found: ContextVar[tuple[Nodes, dict[type, Problems]] | None] = ContextVar("found", default=None)


class Problem(NamedTuple):
    """An input that cannot be used, and the sentence that says why."""

    input_name: str
    sentence: str


def problem_of(make: Callable[[], object], input_name: str) -> Problem | None:
    """Return the error of `make` as the problem of an input; None if it raises none."""
    try:
        make()
    except AnimateDiffV2VError as error:
        return Problem(input_name, str(error))
    return None


class _Validation:
    """The `validate_inputs` of a node class, with the wrong inputs as its parameters."""

    def __get__(self, _instance: object, owner: type[CheckedNode]) -> MethodType:
        # ComfyUI also looks the method up on the class that defines it.
        problems = {} if owner is CheckedNode else _problems(owner)
        wrong = dict.fromkeys(each.input_name for each in problems.values())
        names = ["cls", *(wrong or owner.wider_than_widget)]

        def validate(_cls: type, **_values: object) -> bool | str:
            problem = problems.get(host.current_node_id() or "")
            return True if problem is None else problem.sentence

        kind = Parameter.POSITIONAL_OR_KEYWORD
        validate.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter(name, kind) for name in names]
        )
        return MethodType(validate, owner)


class CheckedNode(io.ComfyNode):
    """A node whose inputs are checked before the graph runs, by its `find_problem`.

    `find_problem` takes the node's id and, as keywords, the inputs that it checks. Inputs that are
    linked or missing keep their defaults.
    """

    find_problem: ClassVar[Callable[..., Problem | None]]
    wider_than_widget: ClassVar[tuple[str, ...]] = ()
    """Inputs that also take values beyond their widgets' range; `find_problem` checks them."""
    validate_inputs = _Validation()


def _problems(node: type[CheckedNode]) -> Problems:
    """Return the problems of all nodes of a class in the submitted graph, by node id."""
    nodes, found = host.submitted_prompt(), _found.get()
    if found is None or found[0] is not nodes:
        found = (nodes, {})
        _found.set(found)
    if node not in found[1]:
        class_type = node.define_schema().node_id
        checked = {
            node_id: node.find_problem(node_id, **known_values(node, each.get("inputs", {})))
            for node_id, each in nodes.items()
            if each.get("class_type") == class_type
        }
        found[1][node] = {key: problem for key, problem in checked.items() if problem}
    return found[1][node]


def known_values(node: type[CheckedNode], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that `find_problem` takes and that are known before the graph runs."""
    parameters = signature(node.find_problem).parameters
    takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    known = {}
    for name, given in inputs.items():
        value = given.get("__value__") if isinstance(given, dict) else given
        # A list is a link to another node.
        if value is None or isinstance(value, list) or not (takes_all or name in parameters):
            continue
        annotation = parameters[name].annotation if name in parameters else ""
        try:
            known[name] = _CONVERSIONS.get(annotation, _unchanged)(value)
        except (TypeError, ValueError, OverflowError):
            continue  # ComfyUI reports it.
    return known


def _unchanged(value: Any) -> Any:
    return value
