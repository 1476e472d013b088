"""Numbers of a request that can be curves along the frames of the video, or over the steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ...pipeline.curve import Curve, Strength, check_strength
from ...pipeline.curve_text import EXAMPLE
from ...pipeline.errors import AnimateDiffV2VError
from ...pipeline.ranges import Range

LONGEST_CURVE = 10_000
# What a curve has and no number: what stands between a place and its number.
_SIGNS = re.compile("[:：=]")


@dataclass(frozen=True)
class NumberOrCurve:
    """The annotation of a field that takes a number or the text of a curve, within limits.

    Everything that is no curve is checked, and refused, as a field of a number would be. In JSON, a
    curve is its text.
    """

    limits: Range[float]
    over_steps: bool = True
    """Take a curve along the noise schedule."""

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema by which pydantic checks the field."""
        number = core_schema.float_schema(
            allow_inf_nan=False, ge=self.limits.low, le=self.limits.high
        )
        return core_schema.with_info_wrap_validator_function(
            self._checked,
            number,
            serialization=core_schema.plain_serializer_function_ser_schema(_as_json),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON schema: that of the number, or text."""
        number = handler(core_schema.float_schema(ge=self.limits.low, le=self.limits.high))
        text = {
            "type": "string",
            "maxLength": LONGEST_CURVE,
            "pattern": _SIGNS.pattern,
            "description": "Beyond the hosted model: a curve along the frames of the output, "
            "`frame: number`, separated by commas"
            + (
                "; or along the noise schedule, `percent: number`, as in `0%: 1.0, 50%: 0.2`."
                if self.over_steps
                else "."
            ),
            "examples": [EXAMPLE],
        }
        return {"anyOf": [number, text]}

    def _checked(
        self, value: Any, number: core_schema.ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Strength:
        if isinstance(value, Curve):
            value = value.text
        if not isinstance(value, str) or not _SIGNS.search(value):
            return number(value)  # type: ignore[no-any-return]
        if len(value) > LONGEST_CURVE:
            raise PydanticCustomError(
                "string_too_long",
                "A curve has at most {max_length} characters",
                {"max_length": LONGEST_CURVE},
            )
        try:
            curve = Curve(value)
            name = info.field_name or "The number"
            check_strength(self.limits, name, curve, over_steps=self.over_steps)
        except AnimateDiffV2VError as error:
            raise PydanticCustomError(
                "value_error", "{sentence}", {"sentence": str(error)}
            ) from error
        return curve


def _as_json(value: Strength) -> float | str:
    return str(value) if isinstance(value, Curve) else value
