"""The OpenAPI description, compared with the server by requests that schemathesis generates."""

from __future__ import annotations

import schemathesis
from animatediff_v2v.api.wire.hosts import HEALTH
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def test_no_request_breaks_the_server(home):
    described = home.get("/animatediff-v2v/openapi.json", key=None).json()
    operations = [
        each.ok() for each in schemathesis.openapi.from_dict(described).get_all_operations()
    ]
    assert len(operations) == sum(len(path) for path in described["paths"].values()) == 17
    for operation in operations:
        # What takes nothing can be given nothing wrong.
        takes = operation.path != HEALTH
        for mode in MODES if takes else MODES[:1]:
            hold(home, operation, mode)
    assert "Traceback" not in home.log()


def hold(home, operation, mode):
    key = {"Authorization": f"Key {home.key}"}

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        response = case.call(base_url=home.url, headers=key, session=home.session)
        case.validate_response(response, checks=CHECKS)

    check()
