"""The few places that touch Hydra and OmegaConf; what comes out is overrides, dataclasses and Refused."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from loraloom.data_files import data_dir
from loraloom.hydra.plugins import load_plugins
from loraloom.hydra.presets import Presets
from registry.errors import LoomError, Refused

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

C = TypeVar("C")

ALONE = threading.RLock()  # Hydra composes with one state for the whole process


def parse(argument: str) -> "Override":
    """One argument in Hydra's grammar. Raises HydraException."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(argument)


def is_readable(argument: str) -> bool:
    """Whether Hydra's grammar takes the argument."""
    from hydra.errors import HydraException

    try:
        parse(argument)
    except HydraException:
        return False
    return True


def prepare(name: str, schema: type) -> None:
    """Make a job's schema and our one resolver known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    load_plugins()
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    # In presets only: the folder of a set that travels with loraloom, wherever it is installed.
    OmegaConf.register_new_resolver("shipped", lambda shipped: str(data_dir() / shipped), replace=True)


def compose(name: str, schema: type, overrides: Sequence[str]) -> "DictConfig":
    """The raw config of a single run: conf/<name>.yaml, changed by the overrides."""
    import hydra

    with ALONE:
        prepare(name, schema)
        with hydra.initialize_config_dir(str(Presets.home()), version_base="1.3", job_name=name):
            return hydra.compose(name, overrides=list(overrides))


def compose_hydra(name: str, schema: type, overrides: Sequence[str]) -> "DictConfig":
    """Hydra's own part of the config: its sweeper, its launcher."""
    import hydra

    with ALONE:
        prepare(name, schema)
        with hydra.initialize_config_dir(str(Presets.home()), version_base="1.3", job_name=name):
            config: DictConfig = hydra.compose(name, overrides=list(overrides), return_hydra_config=True).hydra
            return config


def to_config(raw: "DictConfig", schema: type[C]) -> C:
    """The typed config; merging over the schema also refuses what is not in it."""
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(raw))
    config = OmegaConf.to_object(merged)
    if not isinstance(config, schema):
        raise TypeError(f"{schema.__name__} came back as {type(config).__name__}")
    return config


@contextmanager
def understandable() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into Refused, with the first cause; our own errors come out as they are."""
    from hydra.errors import HydraException
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except YAMLError as error:  # of a preset; its text names file and line
        raise Refused(f"a preset is not YAML: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Refused(f"a preset does not hold NAME: VALUE lines ({error}).") from error  # OmegaConf's, of a bare number
    except (HydraException, OmegaConfBaseException, ValueError, OverflowError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, LoomError):
            cause = cause.__cause__
        if isinstance(cause, LoomError):
            raise cause from error
        where = getattr(cause, "full_key", None)
        message = str(cause).partition("\n")[0] or type(cause).__name__
        if isinstance(cause, InterpolationResolutionError):
            message += ". ${...} in quotes is replaced by a setting's value; the signs themselves are written \\${...}"
        raise Refused(f"{where}: {message}" if where else message) from error


def call_hydra(name: str, schema: type, words: Sequence[str], task: Callable[["DictConfig"], Any], *, program: str | None = None) -> None:
    """Run Hydra's own main on these words; it reads them from sys.argv."""
    import hydra

    prepare(name, schema)
    before = sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints the traceback and exits by itself
    sys.argv = [program or f"loraloom {name}", *words]
    try:
        with understandable(), _own_logging():
            hydra.main(version_base="1.3", config_path=str(Presets.home()), config_name=name)(task)()
    except SystemExit as error:  # Hydra ends so after --hydra-help
        if error.code:
            raise
    finally:
        sys.argv = before


@contextmanager
def _own_logging() -> Iterator[None]:
    """Hydra's --info and --hydra-help add handlers to the root logger; ours come back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level
