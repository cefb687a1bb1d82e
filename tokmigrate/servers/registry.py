"""The programs whose reading of a model can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tokmigrate.servers import gguf, onnx, tgi, vllm
from tokmigrate.servers.finding import Target

Name = Literal["gguf", "vllm", "tgi", "onnx"]

TARGETS: Mapping[Name, Target] = {
    "gguf": gguf.TARGET,
    "vllm": vllm.TARGET,
    "tgi": tgi.TARGET,
    "onnx": onnx.TARGET,
}
