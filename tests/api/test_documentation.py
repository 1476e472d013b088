"""The statements of docs/migrate-from-fal.md are true."""

import re

import pytest
from animatediff_v2v.api.settings import SWITCH, Settings
from animatediff_v2v.api.wire.endpoints import ENDPOINTS
from animatediff_v2v.api.wire.hosts import HOSTS

from ..host.comfy_server import PACK

PAGE = (PACK / "docs" / "migrate-from-fal.md").read_text(encoding="utf-8")
CLIENTS = PACK / "api" / "clients"


@pytest.mark.parametrize("name", [*Settings.model_fields, *ENDPOINTS, SWITCH])
def test_names_what_there_is(name):
    assert f"`{name}" in PAGE or f"{name}=1" in PAGE


def test_names_no_setting_that_there_is_not():
    table = PAGE.split("## Settings")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE)))
    assert set(named) == set(Settings.model_fields)


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_is_mapped(host):
    for text in ((CLIENTS / "fal-local.cjs").read_text(), PAGE):
        assert f'"{host}"' in text


def test_the_files_that_it_names_exist():
    for name in set(re.findall(r"api/clients/([\w.-]+)", PAGE)):
        assert (CLIENTS / name).is_file()
