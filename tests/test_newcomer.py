"""What somebody is told who has no captioner: each way in that sentence leads to captions."""

import re
from collections.abc import Iterator

import pytest
from blip_stand_in import BlipStandIn
from chat_stand_in import ChatStandIn
from clustr_plugins.blip import BlipConfig
from plugin_commands import run_plugins
from workshop import Workshop

from clustr.plugin_manager.service_addresses import note_without_captioner

NOTE = (
    "No captioner is configured. To have captions, set CLUSTR_PLUGIN__OPENAI__BASE_URL to the "
    "address of a chat server whose model sees, such as http://localhost:11434/v1 for Ollama; or "
    "set BLIP_SERVICE_URL to the address of a captioner, or run `clustr captioner` or start "
    "another at http://localhost:8001, where it is looked for."
)
EVERYTHING = {"PLUGINS_DISABLED": "", "PLUGINS_ENABLED": "blip,openai"}
OPENAI, BLIP = re.findall(r"set ([A-Z_]+) to the address", NOTE)


def test_the_sentence(load):
    assert note_without_captioner(load().plugins) == NOTE
    for setting in (OPENAI, BLIP):
        manager = load(environment={setting: "http://captioner:8001"})
        assert note_without_captioner(manager.plugins) is None


def test_the_default_address_in_it_is_where_the_service_is_looked_for():
    [address] = re.findall(r"start another at (\S+),", NOTE)
    assert BlipConfig().load({})["service_url"] == address


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """The address of a service of the kind that each setting wants."""
    with ChatStandIn() as chat, BlipStandIn() as blip:
        yield {OPENAI: chat.url, BLIP: blip.url}


@pytest.mark.parametrize("setting", [OPENAI, BLIP])
def test_who_sets_what_it_says_has_captions(tmp_path, servers, addresses, setting):
    address = {setting: addresses[setting]}
    with Workshop(tmp_path, servers, **EVERYTHING, **address) as workshop:
        [upload] = workshop.upload()
        workshop.worker()
        [analysis] = workshop.get(upload).analyses
        assert workshop.end_of(upload, analysis.name).state == "succeeded"
        assert workshop.get(upload).caption


def test_health_and_the_list_of_plugins_say_it(app_with):
    client = app_with(PLUGINS_ENABLED="blip,openai").test_client()
    health = client.get("/api/health").get_json()["services"]["captioner"]
    assert (health["status"], health["detail"]) == ("not_configured", NOTE)
    told = {plugin["name"]: plugin for plugin in client.get("/api/plugins").get_json()["data"]}
    assert f"No captioner is configured. {told['blip']['reason']}" == NOTE
    assert told["openai"]["reason"].startswith(f"It is off. To have captions, set {OPENAI} to ")
    client = app_with(PLUGINS_ENABLED="openai").test_client()
    health = client.get("/api/health").get_json()["services"]["captioner"]
    assert health["status"] == "disabled"
    assert f"To have captions, set {OPENAI} to the address" in health["detail"]


def test_the_shell_says_it(tmp_path):
    listed = run_plugins(tmp_path, "list", **EVERYTHING)
    assert listed.stderr == f"note: {NOTE}\n"
    address = {OPENAI: "http://localhost:11434/v1"}
    assert run_plugins(tmp_path, "list", **EVERYTHING, **address).stderr == ""
