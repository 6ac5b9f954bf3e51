"""Training of dense and GhostSR networks.

``ghostsr_ext.training.config`` names every setting, :func:`train` does a run.
"""

from ghostsr_ext.training.config import Config
from ghostsr_ext.training.configuration_files import (
    config_from_values,
    config_schema,
    read_config,
    write_config,
)
from ghostsr_ext.training.loop import RunResult, train
from ghostsr_ext.training.value_range import set_value_range

__all__ = [
    "Config",
    "RunResult",
    "config_from_values",
    "config_schema",
    "read_config",
    "set_value_range",
    "train",
    "write_config",
]
