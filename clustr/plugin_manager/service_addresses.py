"""Addresses of the services that plugins call: whether they are set, and how to set them."""

from collections.abc import Mapping

from clustr.domain import failure_messages
from clustr.plugin_manager.configuration import variable_prefix
from clustr.plugin_manager.configuration_keys import configuration_keys_of
from clustr.plugin_manager.plugin import Plugin
from clustr.plugins import Analyzer, HttpAnalyzer

ADDRESS = "service_url"


def has_address(plugin: Plugin, analyzer: Analyzer) -> bool:
    """Whether an analyzer calls a service at an address that can be configured."""
    return isinstance(analyzer, HttpAnalyzer) and ADDRESS in plugin.config


def is_default_address(plugin: Plugin) -> bool:
    """Whether the address of a plugin's service is its default, because none is set."""
    return ADDRESS not in plugin.configured_keys


def address_setting(plugin: Plugin, environment: Mapping[str, str]) -> str:
    """The environment variable that sets the address of a plugin's service.

    Args:
        environment: of several variables, the one that is set there decides.
    """
    schema = plugin.config_schema
    keys = configuration_keys_of(plugin.name, schema) if schema else []
    own = [name for key in keys if key.attribute == ADDRESS for name in key.variables]
    names = [*own, f"{variable_prefix(plugin.name)}{ADDRESS.upper()}"]
    return next(filter(environment.get, names), names[0])


def advice(plugin: Plugin, analyzer: Analyzer) -> str:
    """A sentence on how to get results of an analyzer whose address is not set."""
    wanted = "captions" if "caption" in analyzer.fields else f"results of {analyzer.name}"
    service = service_of(analyzer)
    return (
        f"To have {wanted}, set {address_setting(plugin, {})} to the address of a {service}, or "
        f"start one at {default_address(plugin)}, where it is looked for."
    )


def service_of(analyzer: Analyzer) -> str:
    """The name of an analyzer's service, such as `captioner`."""
    return failure_messages.as_plain_text(getattr(analyzer, "service", "service"))


def default_address(plugin: Plugin) -> str | None:
    """The default address of a plugin's service, without credentials."""
    return failure_messages.without_credentials(
        failure_messages.as_plain_text(plugin.config[ADDRESS])
    )
