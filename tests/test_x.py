"""`clustr x`: the commands of plugins."""

import photographs
import pytest
from workshop import Workshop

PLUGIN = """
import click
from datetime import datetime
from marshmallow import Schema, fields
from clustr.plugins import *

class Config(Schema):
    word = fields.String(load_default="hello")

@hookimpl
def clustr_config_schema():
    return Config

@hookimpl
def clustr_register_commands(config, library):
    @click.command()
    @click.option("--wide", is_flag=True)
    @as_json
    def count(wide, as_json):
        "Count the uploads."
        filters = {"min_width": 50} if wide else {}
        seen = [u.id for u in show_progress(library.walk(filters), library.count(filters))]
        if as_json:
            print_json({"word": config["word"], "count": len(seen)})
        else:
            click.echo(f"{config['word']} {len(seen)}")

    @click.command()
    def fails():
        {}["boxes"]

    @click.command()
    def unknown():
        library.get("0" * 24)

    @click.command()
    def refuses():
        raise click.ClickException("not today")

    return [count, fails, unknown, refuses]
"""


@pytest.fixture
def plugin(workshop: Workshop) -> Workshop:
    workshop.write("it", PLUGIN)
    return workshop


def test_commands_have_configuration_uploads_and_json(plugin: Workshop) -> None:
    plugin.upload(*(photographs.unique("png", n, width, 9) for n, width in enumerate((9, 60))))
    done = plugin.command("x", "it", "count", CLUSTR_PLUGIN__IT__WORD="servus")
    assert (done.returncode, done.stdout, done.stderr) == (0, "servus 2\n", "")
    done = plugin.command("x", "it", "count", "--wide", "--json")
    assert done.stdout == '{\n  "word": "hello",\n  "count": 1\n}\n'


def test_help_lists_the_plugins_and_their_commands(plugin: Workshop) -> None:
    plugin.write(
        "silent",
        "from clustr.plugins import hookimpl\n@hookimpl\ndef clustr_upload_stored(upload): pass\n",
    )
    listed = plugin.command("x", "--help").stdout
    assert "Commands of the plugin it." in listed
    assert "silent" not in listed
    assert "Count the uploads." in plugin.command("x", "it", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("it", "fails"), 1, "the plugin it raised KeyError: 'boxes' (it.py, line 30, in fails)"),
        (("it", "unknown"), 2, "There is no upload with the id 000000000000000000000000."),
        (("it", "refuses"), 1, "Error: not today"),
        (("it", "cuont"), 2, "No such command 'cuont'"),
        (("ti", "count"), 2, "unknown plugin with commands ti; there are it"),
    ],
)
def test_what_goes_wrong_is_said(
    plugin: Workshop, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = plugin.command("x", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[print]", "clustr_register_commands() returned a builtin_function_or_method"),
        ("None", "clustr_register_commands() returned nothing; return a list"),
        ("[click.Command('a'), click.Command('a')]", "returned the command a twice"),
        ("1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_a_hook_that_returns_no_commands_is_said(
    workshop: Workshop, returned: str, said: str
) -> None:
    workshop.write(
        "it",
        f"import click\nfrom clustr.plugins import hookimpl\n@hookimpl\n"
        f"def clustr_register_commands(config, library):\n    return {returned}\n",
    )
    done = workshop.command("x", "it", "count")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_plugin_that_is_not_loaded_is_said(workshop: Workshop) -> None:
    workshop.write("it", "import nothing_there")
    done = workshop.command("x", "it", "count")
    assert done.returncode == 2
    assert "the plugin it is failed: import raised ModuleNotFoundError" in done.stderr


def test_help_of_clustr_loads_no_plugin(plugin: Workshop) -> None:
    seen = plugin.folder / "seen"
    plugin.write("it", f"open({str(seen)!r}, 'w').close()\n{PLUGIN}")
    assert " x " in plugin.command("--help").stdout
    assert not seen.exists()
    assert plugin.command("x", "it", "count").returncode == 0
    assert seen.exists()
