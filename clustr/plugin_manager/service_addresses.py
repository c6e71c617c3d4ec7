"""Addresses of the services that plugins call: whether somebody has set them, and what to set."""

from clustr.domain import failure_messages
from clustr.plugin_manager.configuration import prefix
from clustr.plugin_manager.configuration_keys import keys_of_configuration
from clustr.plugin_manager.plugin import Plugin
from clustr.plugins import Analyzer, HttpAnalyzer

ADDRESS = "service_url"


def has_address(plugin: Plugin, analyzer: Analyzer) -> bool:
    """Whether an analyzer calls a service at an address that can be configured."""
    return isinstance(analyzer, HttpAnalyzer) and ADDRESS in plugin.config


def is_default_address(plugin: Plugin) -> bool:
    """Whether nobody has said where the service of a plugin is."""
    return ADDRESS not in plugin.given


def advice(plugin: Plugin, analyzer: Analyzer) -> str:
    """What to do to have results of an analyzer whose address nobody has set, in a sentence."""
    wanted = "captions" if "caption" in analyzer.fields else f"results of {analyzer.name}"
    service = service_of(analyzer)
    schema = plugin.config_schema
    keys = keys_of_configuration(plugin.name, schema) if schema else []
    own = (key.variables[0] for key in keys if key.attribute == ADDRESS)
    setting = next(own, f"{prefix(plugin.name)}{ADDRESS.upper()}")
    return (
        f"To have {wanted}, set {setting} to the address of a {service}, or start one at "
        f"{default_address(plugin)}, where it is looked for."
    )


def service_of(analyzer: Analyzer) -> str:
    """What an analyzer calls its service, such as `captioner`."""
    return failure_messages.as_plain_text(getattr(analyzer, "service", "service"))


def default_address(plugin: Plugin) -> str | None:
    """Where a service is expected while its address is not set."""
    return failure_messages.without_credentials(
        failure_messages.as_plain_text(plugin.config[ADDRESS])
    )
