"""What a model card needs of the graph: the checks that watch a model."""

import dagster as dg


def watching_checks() -> list[tuple[str, str]]:
    """Name and description of every check of the graph."""
    from creditrisk_assets.defs import champion, drift, history, performance, production

    modules = (history, production, drift, performance, champion)
    found = [*dg.load_assets_from_modules(modules), *dg.load_asset_checks_from_modules(modules)]
    specs = [spec for one in found if isinstance(one, dg.AssetsDefinition) for spec in one.check_specs]
    return sorted({(spec.name, " ".join((spec.description or "").split())) for spec in specs})
