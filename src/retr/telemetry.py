"""What libraries would tell others about this machine by themselves, switched off before any of them is imported.

`retr` opens a connection only for a hub or store that the user names. Some libraries under it report to their makers:
ONNX Runtime from the moment it is imported (a hash of the host, the names of programs, later each session, first into a
queue below the user's cache). Their switches are environment variables that are read at import, so `switch_off` runs
when the package `retr` is imported, before anything else of it; child processes inherit them. A value that the user set
is overwritten: there is none that switches reporting on in a process of `retr`.
"""

from __future__ import annotations

import os
import sys

# variable -> its value, and what it stops
SWITCHES: dict[str, tuple[str, str]] = {
    "ORT_DISABLE_TELEMETRY": ("1", "ONNX Runtime 1.24 and later report their use and the host to Microsoft"),
    "HF_HUB_DISABLE_TELEMETRY": ("1", "huggingface_hub sends names and versions of what is installed with requests"),
    "HF_HUB_DISABLE_UPDATE_CHECK": ("1", "huggingface_hub's commands ask PyPI for a newer version of themselves"),
    "DISABLE_SAFETENSORS_CONVERSION": ("1", "transformers asks a service to convert a model, from a thread of its own"),
    "DO_NOT_TRACK": ("1", "understood by many libraries, among them those that other packages' encoders bring"),
    "NO_ALBUMENTATIONS_UPDATE": ("1", "albumentations, common in encoders, asks PyPI for its newest version"),
    "OTEL_SDK_DISABLED": ("true", "OpenTelemetry, under FastAPI, sends traces where other variables name a receiver"),
    "FASTAPI_OTEL_AUTO_CONFIGURE": ("false", "FastAPI would set such a sender up by itself"),
    "RAY_USAGE_STATS_ENABLED": ("0", "ray reports its use, where somebody serves or builds with it"),
}


def switch_off() -> None:
    """Set the switches, and tell libraries that were imported before."""
    for name, (value, _) in SWITCHES.items():
        os.environ[name] = value
    if (runtime := sys.modules.get("onnxruntime")) is not None and hasattr(runtime, "disable_telemetry_events"):
        runtime.disable_telemetry_events()
    if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
