"""The built-in model `starter`: a small network trained from scratch on composites that this package makes itself.

    sources (packages with free pictures) -> library (subjects with alpha, photographs)
          -> compose (one picture, one true mask) -> train (network, PyTorch) -> export (OpenVINO IR: FP16, INT8)

    exams: composites to judge it by

`make starter` does everything, on two CPU cores in less than three hours, and goes on where it was interrupted. Which
packages, under which licences, is in `sources`; what came out, and where it fails, in the model card beside the bundle.

The split is made once, by name: a subject, photograph or environment that `exams` uses is never seen in training.
"""
