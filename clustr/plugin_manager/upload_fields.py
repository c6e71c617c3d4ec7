"""Which analyzer fills a field of uploads, where several would: one for each field.

In this order decide: what the operator has chosen; whether an analyzer looks at every upload;
whether its service has an address that was set, or it needs none; and the order of plugins, whose
last one wins: a drop-in before a package, and a package before what comes with Clustr.
"""

from collections.abc import Iterable, Mapping

from clustr.plugin_manager.plugin import Plugin
from clustr.plugin_manager.service_addresses import has_address, is_default_address

DeclaredFields = Mapping[str, Mapping[str, str]]


def share_fields(
    plugins: Iterable[Plugin], declared: DeclaredFields, chosen: Mapping[str, str]
) -> None:
    """Leave each field to one analyzer: take it out of the `fields` of the others.

    Args:
        declared: what each analyzer has declared as its `fields`, by its name.
        chosen: the name of the analyzer that the operator wants, by the name of the field.
    """
    ranks: dict[str, tuple[bool, bool, bool, int]] = {}
    owners: dict[str, str] = {}
    pairs = [(plugin, analyzer) for plugin in plugins for analyzer in plugin.analyzers]
    for number, (plugin, analyzer) in enumerate(pairs):
        is_there = not (has_address(plugin, analyzer) and is_default_address(plugin))
        for field in declared[analyzer.name]:
            rank = (chosen.get(field) == analyzer.name, analyzer.auto, is_there, number)
            if field not in ranks or rank > ranks[field]:
                ranks[field], owners[field] = rank, analyzer.name
    for _, analyzer in pairs:
        own = declared[analyzer.name]
        analyzer.fields = {name: own[name] for name in own if owners[name] == analyzer.name}
