"""What a job takes along of the shell that submits it, and how its secrets travel. Pure.

Slurm's own `--export` is never used. With a list, `NAME=VALUE` or NONE it also sets SLURM_EXPORT_ENV, which every srun
of the job obeys: what setup lines export would be lost, and values would stand on a command line (22.05, sbatch.c).
sbatch is given exactly the environment that the job shall have instead, and any value survives that.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from trainmaster.launcher.submit.spec_env import ENV_NAME

ALWAYS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "TRAINMASTER_*")
"""Without these neither sbatch nor the job would start."""

BASE = (
    *("LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "MAIL", "HOSTTYPE", "UMASK", "XDG_*_HOME"),
    # where programs and libraries are found
    *("LD_*", "LIBRARY_PATH", "CPATH", "MANPATH", "PKG_CONFIG_PATH", "PYTHON*", "VIRTUAL_ENV*", "CONDA_*", "MAMBA_*"),
    *("_CE_*", "PYENV_*", "UV_*", "PIXI_*", "SPACK_*", "EBROOT*", "EBVERSION*", "JAVA_HOME"),
    # environment modules
    *("MODULEPATH*", "MODULESHOME", "MODULES_*", "LOADEDMODULES", "_LMFILES_*", "LMOD_*", "_ModuleTable*", "__LMOD*"),
    *("BASH_ENV", "BASH_FUNC_*"),
    # accelerators and their libraries
    *(
        "CUDA_*",
        "CUDNN_*",
        "CUBLAS_*",
        "NVIDIA_*",
        "NVTE_*",
        "NSYS_*",
        "TRITON_*",
        "CUPY_*",
        "HIP_*",
        "HSA_*",
        "ROCR_*",
    ),
    *("ROCM_*", "MIOPEN_*", "AMD_*", "GPU_*", "ZE_*", "XPU_*", "ONEAPI_*", "NEURON_*", "TPU_*"),
    # threads and memory of a process
    *("OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "NUMEXPR_*", "NUMBA_*", "MALLOC_*", "TCMALLOC_*"),
    # a fabric chosen by hand
    *("NCCL_*", "RCCL_*", "UCX_*", "UCC_*", "GLOO_*", "TP_SOCKET_*", "FI_*", "OMPI_*", "PRTE_*", "MPICH_*", "I_MPI_*"),
    *("CCL_*", "SHARP_*", "HCOLL_*", "IBV_*", "MLX5_*", "RDMAV_*", "NVSHMEM_*"),
    # frameworks
    *(
        "TORCH*",
        "PYTORCH_*",
        "AOT_*",
        "INDUCTOR_*",
        "KINETO_*",
        "TF_*",
        "JAX_*",
        "XLA_*",
        "KERAS_*",
        "PL_*",
        "LIGHTNING_*",
    ),
    *("HF_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "DATASETS_*", "DIFFUSERS_*", "TOKENIZERS_*", "ACCELERATE_*", "FSDP_*"),
    *("DS_*", "DEEPSPEED_*", "MEGATRON_*", "NEMO_*", "VLLM_*", "RAY_*", "HYDRA_*", "SUBMITIT_*"),
    # where metrics and data are
    *("WANDB_*", "MLFLOW_*", "COMET_*", "NEPTUNE_*", "CLEARML_*", "TENSORBOARD_*"),
    *("AWS_*", "S3_*", "GOOGLE_*", "GCS_*", "GCLOUD_*", "AZURE_*", "FSSPEC_*"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_*", "*_CA_BUNDLE"),
)
"""The allow-list: what programs of this trade read, and need to start as they do here. It goes along whatever the
patterns, unless one says `!`; nothing else does unless one names it."""

EVERYTHING: tuple[str, ...] = ("*",)
"""What `sbatch` and submitit do: all but what belongs to the terminal."""

SESSION = (
    *("_", "PWD", "OLDPWD", "SHLVL", "PS1", "PROMPT_COMMAND", "HISTFILE", "HISTSIZE", "HISTCONTROL", "LS_COLORS"),
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "WINDOWID", "COLORTERM", "COLUMNS", "LINES", "TERM_PROGRAM*"),
    *("SSH_*", "GPG_*", "DBUS_*", "XDG_RUNTIME_DIR", "XDG_SESSION_*", "XDG_SEAT*", "XDG_VTNR", "TMUX*", "STY"),
    *("VSCODE_*", "SUDO_*", "INVOCATION_ID", "JOURNAL_STREAM", "LESSOPEN", "LESSCLOSE"),
    *("MAKEFLAGS", "MAKELEVEL", "MFLAGS"),
)
"""What belongs to the terminal, and on a node is wrong at best; exported only when it is named in full."""

# TOKENIZERS_PARALLELISM is no token: the word has to stand alone.
_CREDENTIAL = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)(?:_ID|_BASE64)?$|_SECRET_",
    re.IGNORECASE,
)
# Slurm's commands read it themselves, and sbatch needs it to be let in.
_NO_CREDENTIAL = frozenset({"SLURM_JWT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What is taken of one environment."""

    open: dict[str, str]
    """Goes to Slurm with the job."""
    secret: dict[str, str]
    """Looks like credentials, or was named so: goes into the job's 0600 file."""
    left: tuple[str, ...]
    """Names that stay behind, those of a terminal not counted."""


def inherited(
    env: Mapping[str, str], export: tuple[str, ...] | None, secrets: Mapping[str, str] | tuple[str, ...] = ()
) -> Inherited:
    """Divide an environment.

    >>> seen = inherited({"PATH": "/bin", "DATA": "/d", "OLD": "1", "HF_TOKEN": "x"}, ("DATA", "HF_*"))
    >>> seen.open, seen.secret, seen.left
    ({'PATH': '/bin', 'DATA': '/d'}, {'HF_TOKEN': 'x'}, ('OLD',))
    """
    patterns = () if export is None else export
    named = dict(secrets) if isinstance(secrets, Mapping) else {name: env[name] for name in secrets if name in env}
    found = Inherited(open={}, secret=named, left=())
    left = []
    for name, value in env.items():
        if name in named:
            continue
        if not travels(name, patterns):
            if not _any_of(SESSION).match(name):
                left.append(name)
        elif is_credential(name):
            found.secret[name] = value
        else:
            found.open[name] = value
    return Inherited(open=found.open, secret=found.secret, left=tuple(sorted(left)))


def travels(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a variable goes along: what a job cannot do without, or by the last pattern that matches.

    >>> travels("SSH_AUTH_SOCK", ("*",)), travels("SSH_AUTH_SOCK", ("SSH_AUTH_SOCK",)), travels("LANG", ("!LANG",))
    (False, True, False)
    """
    if _any_of(ALWAYS).match(name):
        return True
    session = _any_of(SESSION).match(name) is not None
    verdict = not session and _any_of(BASE).match(name) is not None
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        if name == bare or (not session and _any_of((bare,)).match(name)):
            verdict = bare == pattern
    return verdict


def is_credential(name: str) -> bool:
    """Whether the name of a variable tells that its value is nobody else's business.

    >>> [is_credential(n) for n in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "TOKENIZERS_PARALLELISM", "WANDB_API_KEY")]
    [True, True, False, True]
    """
    # What is no shell name cannot be read back from the file.
    found = _CREDENTIAL.search(name) is not None and ENV_NAME.fullmatch(name) is not None
    return found and name not in _NO_CREDENTIAL


def missing_secrets(env: Mapping[str, str], secrets: Mapping[str, str] | tuple[str, ...]) -> tuple[str, ...]:
    """Secrets that were only named and have no value here."""
    return () if isinstance(secrets, Mapping) else tuple(name for name in secrets if name not in env)


def secrets_script(secrets: Mapping[str, str]) -> str:
    r"""The file that the batch script reads before anything else.

    >>> print(secrets_script({"KEY": "it's $(x)\n"}), end="")
    export KEY='it'"'"'s $(x)
    '
    """
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in secrets.items())


@lru_cache(maxsize=64)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all: a hundred variables against a hundred patterns one by one take 20 ms a submission."""
    return re.compile("|".join(translate(pattern) for pattern in patterns))
