"""Import networks that others have published, as ONNX files or OpenVINO IR, into bundles: `worker model import`.

importer      the order of the steps, and the bundle
request       what to import, and the report
families      the networks that are known: size, normalisation, what their output is
onnx_file     reads the frame of an ONNX file: opset, operations, files beside it
reading       the file becomes an OpenVINO graph, or a clear error
shaping       one input [1, 3, H, W], one output [1, 1, H, W]
output_kind   logits or probabilities, from the graph and from two pictures
pictures      photographs to run
verification  masks of the bundle against ONNX Runtime
"""

from __future__ import annotations

import importlib
from typing import Any

from worker.convert.importing.families import Family
from worker.convert.importing.request import (
    Decision,
    ImportReport,
    ImportRequest,
    LicenceFacts,
    OnProgress,
    Verification,
)

__all__ = [
    "Decision",
    "Family",
    "ImportReport",
    "ImportRequest",
    "LicenceFacts",
    "OnProgress",
    "Verification",
    "import_network",
]


def import_network(request: ImportRequest, on_progress: OnProgress = lambda step: None) -> ImportReport:
    """Write a bundle; see `worker.convert.importing.importer`, which is loaded, with OpenVINO, only here."""
    importer: Any = importlib.import_module("worker.convert.importing.importer")
    report: ImportReport = importer.import_network(request, on_progress)
    return report
