"""The configuration of plugins: where it comes from, what is wrong with it, and its secrets."""

import re

import pytest
from plugin_sources import (
    CONFIGURED,
    GOOD,
    SECRETIVE,
    named,
)
from workshop import FIRST_PARTY_ANALYZERS, analyzer

from clustr.components import build_plugin_manager
from clustr.domain.errors import StartUpError
from clustr.plugin_manager import load_plugins
from clustr.settings import read_settings


@pytest.mark.parametrize(
    ("variables", "toml", "colour"),
    [
        ({}, "", "grey"),
        ({}, "colour = 'red'", "red"),
        ({"CLUSTR_PLUGIN__GOOD__COLOUR": "blue"}, "colour = 'red'", "blue"),
        ({"CLUSTR_PLUGIN__GOOD__COLOUR": "blue", "FAVOURITE_COLOUR": "teal"}, "", "teal"),
        ({"FAVOURITE_COLOUR": ""}, "colour = 'red'", "red"),
        ({"X_CLUSTR_PLUGIN__GOOD__COLOUR": "blue"}, "", "grey"),
    ],
)
def test_configuration_comes_from_the_first_that_has_it(
    load, plugins_folder, variables, toml, colour
):
    (plugins_folder / "good.py").write_text(CONFIGURED)
    found = named(load(toml=f"[good]\nsize = 3\n{toml}", environment=variables), "good")
    assert found.reason is None
    assert found.config == {"colour": colour, "size": 3}


def test_secrets_are_apart(load, plugins_folder):
    (plugins_folder / "good.py").write_text(CONFIGURED)
    found = named(load(toml="[good]\nsize = 3\npassword = 'sesame'"), "good")
    assert found.secrets == {"password": "sesame"}
    assert "password" not in found.config


def test_hook_is_given_the_configuration(load, plugins_folder):
    source = CONFIGURED.replace("return [It()]", "assert config['size'] == 3; return [It()]")
    (plugins_folder / "good.py").write_text(source)
    assert named(load(toml="[good]\nsize = 3"), "good").state == "loaded"


@pytest.mark.parametrize(
    ("toml", "variables", "reason"),
    [
        (
            "",
            {},
            r"size: Missing data for required field\.; set CLUSTR_PLUGIN__GOOD__SIZE, or size in "
            r"the table \[good\] of PLUGINS_CONFIG$",
        ),
        ("[good]\nsize = 'large'", {}, r"size: Not a valid integer"),
        (
            "[good]\nsize = 3\nshape = 'round'",
            {},
            "unknown key shape; there are colour, password, size",
        ),
        (
            "[good]\nsize = 3",
            {"CLUSTR_PLUGIN__GOOD__SHAPE": "round"},
            "unknown key shape; there are colour, password, size",
        ),
        ("[good]\nsize = 3\ncolor = 'red'", {}, "unknown key color; did you mean colour?"),
        ("[good]\nsize = 3", {"CLUSTR_PLUGIN__GOOD__SIZ": "3"}, r"unknown key siz; .* size\?"),
        ("good = 3", {}, r"good is no table"),
    ],
)
def test_bad_configuration_is_that_plugins_alone(load, plugins_folder, toml, variables, reason):
    (plugins_folder / "good.py").write_text(CONFIGURED)
    (plugins_folder / "other.py").write_text(analyzer("other", "return {}"))
    plugin_manager = load(toml=toml, environment=variables)
    assert named(plugin_manager, "good").state == "misconfigured"
    assert re.search(reason, named(plugin_manager, "good").reason)
    assert named(plugin_manager, "other").state == "loaded"


def test_configuration_for_a_plugin_that_takes_none_is_refused(load, plugins_folder):
    (plugins_folder / "good.py").write_text(GOOD)
    found = named(load(toml="[good]\nsize = 3"), "good")
    assert found.state == "misconfigured"
    assert found.reason == "it takes no configuration, but is given size"


@pytest.mark.parametrize("content", [b"[good]\nsize = = 3\n", b"\xff\xfe", None])
def test_unreadable_file_of_configuration_stops_the_start(tmp_path, plugins_folder, content):
    file = tmp_path / "plugins.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(StartUpError) as caught:
        load_plugins(plugins_folder, None, (), file, {})
    assert str(caught.value).startswith(f"PLUGINS_CONFIG={file} cannot be read: ")
    assert content != b"[good]\nsize = = 3\n" or "line 2" in str(caught.value)


def test_file_of_configuration_need_not_exist(tmp_path, plugins_folder):
    plugin_manager = load_plugins(plugins_folder, None, (), tmp_path / "nothing.toml", {})
    assert set(plugin_manager.analyzers) == FIRST_PARTY_ANALYZERS


def test_env_file_configures_plugins_too(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("BLIP_SERVICE_URL=http://captioner:9000  # a comment\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLIP_SERVICE_URL", raising=False)
    assert named(build_plugin_manager(read_settings()), "blip").config["service_url"] == (
        "http://captioner:9000"
    )
    monkeypatch.setenv("BLIP_SERVICE_URL", "http://elsewhere:9000")
    assert named(build_plugin_manager(read_settings()), "blip").config["service_url"] == (
        "http://elsewhere:9000"
    )


def test_values_come_from_variables_and_files(load, plugins_folder, tmp_path):
    file = tmp_path / "word"
    file.write_text("open sesame, please\n")
    (plugins_folder / "good.py").write_text(SECRETIVE)
    toml = f"""
[good]
colour = {{ "$env" = "COLOUR" }}
names = [{{ "$env" = "COLOUR" }}, "blue"]
login = {{ user = "me", word = {{ "$file" = "{file}" }} }}
"""
    found = named(load(toml=toml, environment={"COLOUR": "red"}), "good")
    assert found.reason is None
    assert found.config == {"colour": "red", "names": ["red", "blue"]}
    assert found.secrets == {"login": {"user": "me", "word": "open sesame, please"}}


def test_lists_in_the_environment_are_separated_by_commas(load, plugins_folder):
    (plugins_folder / "good.py").write_text(SECRETIVE)
    variables = {"CLUSTR_PLUGIN__GOOD__NAMES": "red, blue,"}
    assert named(load(environment=variables), "good").config == {"names": ["red", "blue"]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('{ "$env" = "NOT_THERE" }', "colour: the environment variable NOT_THERE is not set"),
        ('{ "$env" = "EMPTY" }', "colour: the environment variable EMPTY is not set"),
        ('{ "$file" = "/no/such/word" }', "colour: the file word cannot be read: No such file or"),
        ('{ "$file" = "/usr" }', "colour: the file usr cannot be read: Is a directory"),
        ('{ "$evn" = "COLOUR" }', 'colour: expected a value, or { "$env" = "NAME" } or'),
        ('{ "$env" = "COLOUR", more = 1 }', "colour: expected a value, or"),
        ('{ "$env" = 7 }', "colour: expected a value, or"),
    ],
)
def test_reference_to_nothing_names_its_key(load, plugins_folder, value, reason):
    (plugins_folder / "good.py").write_text(SECRETIVE)
    variables = {"EMPTY": "", "COLOUR": "red"}
    found = named(load(toml=f"[good]\ncolour = {value}", environment=variables), "good")
    assert found.state == "misconfigured"
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("token = 'sesame-7'", "token: it cannot be used; as it is a secret, no more is said"),
        ("pin = 'sesame-7'", "pin: it cannot be used; as it is a secret"),
        ("login = { word = 'sesame-7' }", r"login\.word: it cannot be used; as it is a secret"),
        ("login = { wrd = 'sesame-7' }", r"login: unknown key wrd; did you mean word\?"),
        ("pn = 'sesame-7'", r"unknown key pn; did you mean pin\?"),
        (
            "pin = 'x'\ncolour = 'odd'\nlogin = { word = 'sesame-7 it is' }",
            r"odd, with .*\(secret\)",
        ),
        ("token = 7\ncolour = 'worse'\nlogin = { word = 'sesame-7 it is' }", "raised RuntimeError"),
    ],
)
def test_secrets_are_in_no_reason_trace_or_repr(load, plugins_folder, toml, reason):
    (plugins_folder / "good.py").write_text(SECRETIVE)
    plugin_manager = load(toml=f"[good]\n{toml}")
    found = named(plugin_manager, "good")
    assert found.state == "misconfigured"
    assert re.search(reason, found.reason)
    assert "sesame" not in found.reason + repr(found) + str(found.trace)


def test_secrets_of_a_loaded_plugin_are_not_in_its_repr(load, plugins_folder):
    (plugins_folder / "good.py").write_text(SECRETIVE)
    found = named(load(toml="[good]\npin = 'x'\ntoken = 4711\ncolour = 'red'"), "good")
    assert found.secrets == {"pin": "x", "token": 4711}
    assert "red" in repr(found)
    assert "4711" not in repr(found)


def test_hash_of_the_configuration_is_of_what_is_no_secret(load, plugins_folder):
    (plugins_folder / "good.py").write_text(SECRETIVE)

    def hash_with(toml: str) -> str:
        return named(load(toml=f"[good]\n{toml}"), "good").config_hash

    red = hash_with("colour = 'red'")
    assert re.fullmatch("[0-9a-f]{16}", red)
    assert hash_with("colour = 'red'\ntoken = 7") == red
    assert hash_with("colour = 'blue'") != red


def test_configuration_of_nothing_is_told(load, plugins_folder):
    (plugins_folder / "good.py").write_text(CONFIGURED)
    toml = "[goood]\nsize = 3\n[good]\nsize = 3\n[plugins.good]\n[analyzers.blipp]\nqueue = 'http'"
    plugin_manager = load(toml=toml, environment={"CLUSTR_PLUGIN__GODO__SIZE": "3"})
    assert plugin_manager.warnings == (
        "[plugins.good] is not read; a plugin's table is just [good]",
        "[analyzers.blipp]: unknown analyzer blipp; did you mean blip?",
        "[goood]: unknown plugin goood; did you mean good?",
        "CLUSTR_PLUGIN__GODO__SIZE: unknown plugin godo; did you mean good?",
    )
    assert named(plugin_manager, "good").state == "loaded"


def test_operator_adjusts_analyzers(load, plugins_folder):
    (plugins_folder / "good.py").write_text(GOOD)
    plugin_manager = load(toml="[analyzers.good]\nqueue = 'gpu'\ntimeout = 5\nauto = false")
    good = plugin_manager.analyzers["good"]
    assert (good.queue, good.timeout, good.auto) == ("gpu", 5, False)


def test_timeout_that_lengthens_no_call_is_told(load):
    called = "[blip]\ntimeout = 20.5\n[analyzers.blip]\n"
    assert load(toml=f"{called}timeout = 30.5").warnings == ()
    assert load(toml=f"{called}timeout = 120").warnings == (
        "[analyzers.blip] timeout = 120 gives no answer more time: calls end after 20.5 seconds; "
        "raise timeout in [blip]",
    )
    in_its_own_way = "[openai]\nbase_url = 'http://model:1/v1'\n[analyzers.openai]\ntimeout = 900"
    manager = load(toml=in_its_own_way)
    assert (manager.analyzers["openai"].timeout, manager.warnings) == (900, ())


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("queue = 'fast'", "analyzers.good: queue must be one of default, http, gpu"),
        ("timeout = '5'", "analyzers.good: timeout must be seconds above 0"),
        ("timout = 5", "analyzers.good: unknown key timout; did you mean timeout?"),
        ("version = 5", "analyzers.good: unknown key version; there are auto, queue, timeout"),
    ],
)
def test_bad_adjustment_is_that_plugins_alone(load, plugins_folder, toml, reason):
    (plugins_folder / "good.py").write_text(GOOD)
    plugin_manager = load(toml=f"[analyzers.good]\n{toml}")
    assert named(plugin_manager, "good").state == "misconfigured"
    assert named(plugin_manager, "good").reason.startswith(reason)
    assert set(plugin_manager.analyzers) == FIRST_PARTY_ANALYZERS
