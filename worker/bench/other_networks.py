"""The same network in PyTorch and in ONNX Runtime. Runs in a child process only; either library may be missing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from worker.bench.harness.requests import NetworkRequest
from worker.bench.prepare import arrays


class _PyTorch:
    """Eager PyTorch: one concurrent call per stream, each with its share of the threads."""

    def __init__(self, request: NetworkRequest) -> None:
        twin: Any = importlib.import_module("worker.bench.birefnet_torch")
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(request["threads"] // request["streams"])
        self._forward = twin.forward
        self._state = twin.weights(arrays(request["checkpoint"])[0])
        self._image = self._torch.from_numpy(np.load(request["normalised"]))
        self.callers: int = request["streams"]

    def infer(self) -> object:
        with self._torch.inference_mode():
            return self._forward(self._state, self._image)

    def facts(self) -> dict[str, Any]:
        return {
            "pytorch": str(self._torch.__version__),
            "threads_per_call": self._torch.get_num_threads(),
            "calls_at_once": self.callers,
            "cpu_capability": self._torch.backends.cpu.get_cpu_capability(),
        }


class _OnnxRuntime:
    """ONNX Runtime: one session per stream, each with its share of the threads."""

    def __init__(self, request: NetworkRequest) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = request["threads"] // request["streams"]
        options.inter_op_num_threads = 1
        self.callers: int = request["streams"]
        self._version = runtime.__version__
        self._file = Path(request["onnx"])
        # A call takes an idle session, as the engine takes a request, so two calls never share a thread pool.
        self._idle = [
            runtime.InferenceSession(str(self._file), options, providers=["CPUExecutionProvider"])
            for _ in range(self.callers)
        ]
        self._image = np.load(request["normalised"])

    def infer(self) -> object:
        session = self._idle.pop()
        try:
            return session.run(None, {"image": self._image})
        finally:
            self._idle.append(session)

    def facts(self) -> dict[str, Any]:
        return {
            "onnxruntime": self._version,
            "sessions": self.callers,
            "deformable_convolution": "DeformConv of opset 19",
        }


def open_pytorch(request: NetworkRequest) -> _PyTorch:
    """Load the PyTorch twin with the weights of `checkpoint`; read `normalised`, `streams` and `threads`."""
    return _PyTorch(request)


def open_onnxruntime(request: NetworkRequest) -> _OnnxRuntime:
    """Load the exported twin from `onnx`; read `normalised`, `streams` and `threads`."""
    return _OnnxRuntime(request)
