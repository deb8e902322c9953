"""The environment of a job: what its adder had set for this program and its libraries, without anything secret."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from registry.files.made_folders import VARIABLE

PREFIXES = (
    "LORALOOM_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "DIFFUSERS_",
    "ACCELERATE_",
    "TORCH",  # TORCHINDUCTOR_CACHE_DIR and TORCHDYNAMO_... are torch's, too
    "PYTORCH_",
    "CUDA_",
    "NCCL_",
    "OMP_",
    "MKL_",
    "WANDB_",
)
OWN = (VARIABLE, "LORALOOM_HOME")  # set by the queue itself
SECRET_NAME = re.compile("TOKEN|SECRET|PASS|CREDENTIAL|KEY|AUTH|COOKIE")
SECRET_VALUE = re.compile(
    r"://[^/\s]*:[^/\s]*@"  # a URL with a password
    r"|\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}"  # tokens of Hugging Face, OpenAI, GitHub
)


def is_kept(name: str, value: str) -> bool:
    """Whether a variable is written into a job's folder: it is of a library that is used here, and nothing like a secret."""
    if not name.startswith(PREFIXES) or name in OWN:
        return False
    return not SECRET_NAME.search(name) and not SECRET_VALUE.search(value)


def kept(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Of an environment what is written into a job's folder, by name."""
    return {name: value for name, value in sorted(environment.items()) if is_kept(name, value)}


def job_environment(stored: Mapping[str, str], *, job: Path, home: Path, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a job's process: that of the process which starts it, with the adder's variables in place of its own.

    Variables that are not stored as they look secret are those of the process which starts the job.
    """
    found = {name: value for name, value in own.items() if not is_kept(name, value)}
    found |= {name: value for name, value in stored.items() if is_kept(name, value)}
    return with_own_path(found | {VARIABLE: str(job), "LORALOOM_HOME": str(home)})


def with_own_path(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a Python imports this very loraloom, from whatever folder it is started."""
    root = Path(__file__).resolve().parents[2]
    given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    installed = (Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))
    if root in installed or given[:1] == [str(root)]:
        return dict(environment)
    return {**environment, "PYTHONPATH": os.pathsep.join([str(root), *given])}
