"""Hydra's launchers and sweepers: which are installed, and what to install for one that is not."""

import warnings
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PACKAGES = {
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "submitit": "hydra-submitit-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
        "ray": "hydra-ray-launcher",
        "ray_aws": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
    },
    "hydra/sweeper": {"optuna": "'loraloom[search]'", "ax": "hydra-ax-sweeper", "nevergrad": "hydra-nevergrad-sweeper"},
}
NEEDS = {  # the plug-in's module -> what it imports only when it runs
    "hydra_plugins.hydra_joblib_launcher": "joblib",
    "hydra_plugins.hydra_submitit_launcher": "submitit",
    "hydra_plugins.hydra_ray_launcher": "ray",
    "hydra_plugins.loraloom_optuna_sweeper": "optuna",
}
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def load_plugins() -> None:
    """Let Hydra look for its plug-ins once. One that cannot be imported is reported when it is chosen, not by a warning here."""
    from hydra.core.plugins import Plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Plugins.instance()
    # conf/hydra/launcher/joblib.yaml has the name of the plug-in's own schema, on purpose; Hydra 1.3 checks it by that and warns.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def choice_fault(group: str, choice: str, folders: Iterable[Path]) -> str | None:
    """Why there is no such launcher or sweeper; None where Hydra or a folder of presets has it."""
    if choice in _targets(group, folders):
        return None
    return f"{group}={choice}: there is no such plug-in installed. {_install(group, choice)} {_installed(group, folders)}"


def target_fault(group: str, choice: str, target: str, folders: Iterable[Path]) -> str | None:
    """Why the class of a launcher or sweeper cannot be used: not installed, or a package that it needs is missing."""
    if not target.startswith("hydra_plugins."):
        return None
    package = ".".join(target.split(".")[:2])
    try:
        import_module(target.rpartition(".")[0])
    except ImportError as error:
        if not (error.name or "hydra_plugins").startswith("hydra_plugins"):
            return _broken(group, choice, str(error), error.name)
        return f"{group}={choice}: the plug-in is not installed. {_install(group, choice)} {_installed(group, folders)}"
    needed = NEEDS.get(package)
    if needed and find_spec(needed) is None:
        return _broken(group, choice, f"No module named {needed!r}", needed)
    return None


def _broken(group: str, choice: str, why: str, package: str | None) -> str:
    line = PACKAGES[group].get(choice) or package
    return f"{group}={choice}: the plug-in cannot be loaded: {why}. Install what is missing: pip install {line}."


def _install(group: str, choice: str) -> str:
    package = PACKAGES[group].get(choice)
    return f"Install it: pip install {package}." if package else f"Known: {', '.join(PACKAGES[group])}."


def _installed(group: str, folders: Iterable[Path]) -> str:
    found = [name for name, target in _targets(group, folders).items() if target is None or target_fault(group, name, target, ()) is None]
    return f"Installed: {', '.join(found)}."


def _targets(group: str, folders: Iterable[Path]) -> dict[str, str | None]:
    """Option -> its class, as Hydra's store and the folders of presets have it; None where only composing it would tell."""
    import yaml
    from hydra.core.config_store import ConfigStore

    load_plugins()
    top, _, inner = group.partition("/")
    store = ConfigStore.instance().repo[top][inner]
    found = {name.removesuffix(".yaml"): node.node.get("_target_") for name, node in store.items() if hasattr(node, "node")}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            found[path.stem] = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("_target_")
    return dict(sorted(found.items()))
