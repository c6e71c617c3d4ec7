"""Addresses of the services that plugins call: whether they are set, and how to set them."""

from collections.abc import Iterable, Mapping

from clustr.domain import failure_messages
from clustr.plugin_manager.configuration import variable_prefix
from clustr.plugin_manager.configuration_keys import configuration_keys_of
from clustr.plugin_manager.plugin import Plugin, PluginState
from clustr.plugins import Analyzer, HttpAnalyzer

ADDRESS = "service_url"
# In the metadata of that key, of a plugin that has no analyzer before it is set: what to set it to.
FOR_CAPTIONS = "for_captions"
# The same of a service that a command starts at its default address: that command.
STARTED_BY = "started_by"


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


def advice(plugin: Plugin, analyzer: Analyzer, plugins: Iterable[Plugin]) -> str:
    """A sentence on how to get results of an analyzer whose address is not set.

    Args:
        plugins: all plugins, others of which may write captions as well.
    """
    if "caption" in analyzer.fields:
        return ways_to_captions(plugins)
    return f"To have results of {analyzer.name}, {_default_way(plugin, analyzer)}."


def ways_to_captions(plugins: Iterable[Plugin]) -> str:
    """A sentence on how to have captions, while no captioner has an address; empty if unknown."""
    plugins = list(plugins)
    ways = [way for plugin in plugins if (way := _way_of_plugin_that_is_off(plugin))]
    ways += [
        _default_way(plugin, analyzer)
        for plugin in plugins
        for analyzer in plugin.analyzers
        if "caption" in analyzer.fields and has_address(plugin, analyzer)
    ]
    return f"To have captions, {'; or '.join(ways)}." if ways else ""


def note_without_captioner(plugins: Iterable[Plugin]) -> str | None:
    """The same with what is missing; None once an analyzer writes captions, or if unknown."""
    plugins = list(plugins)
    captioners = [(p, a) for p in plugins for a in p.analyzers if "caption" in a.fields]
    if any(not (has_address(p, a) and is_default_address(p)) for p, a in captioners):
        return None
    ways = ways_to_captions(plugins)
    return f"No captioner is configured. {ways}" if ways else None


def why_off(plugin: Plugin) -> str | None:
    """A sentence on how to use a plugin that has no analyzer before its address is set."""
    way = _way_of_plugin_that_is_off(plugin)
    return f"It is off. To have captions, {way}." if way else None


def _way_of_plugin_that_is_off(plugin: Plugin) -> str | None:
    is_off = plugin.state is PluginState.LOADED and not plugin.analyzers
    if not is_off or not plugin.config_schema or plugin.config.get(ADDRESS, "") is not None:
        return None
    declared = plugin.config_schema().fields[ADDRESS]
    place = declared.metadata.get(FOR_CAPTIONS)
    return f"set {address_setting(plugin, {})} to {place}" if place else None


def _default_way(plugin: Plugin, analyzer: Analyzer) -> str:
    declared = plugin.config_schema().fields.get(ADDRESS) if plugin.config_schema else None
    command = declared.metadata.get(STARTED_BY) if declared else None
    start = f"run `{command}` or start another" if command else "start one"
    service = service_of(analyzer)
    article = "an" if service[:1].lower() in "aeio" else "a"
    return (
        f"set {address_setting(plugin, {})} to the address of {article} {service}, or {start} "
        f"at {default_address(plugin)}, where it is looked for"
    )


def service_of(analyzer: Analyzer) -> str:
    """The name of an analyzer's service, such as `captioner`."""
    return failure_messages.as_plain_text(getattr(analyzer, "service", "service"))


def default_address(plugin: Plugin) -> str | None:
    """The default address of a plugin's service, without credentials."""
    return failure_messages.without_credentials(
        failure_messages.as_plain_text(plugin.config[ADDRESS])
    )
