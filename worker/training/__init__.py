"""Train the built-in model `starter`: a small network trained from scratch on composites made by this package.

    sources (packages of free pictures) -> library (subjects with alpha, photographs)
          -> compose (one picture with its true mask) -> train (network, PyTorch) -> export (OpenVINO IR: FP16, INT8)

    eval_sets: pictures with true masks for evaluating the model

`make starter` runs all steps; it takes less than three hours on two CPU cores and resumes after an interruption.
`sources` lists the packages and their licences. The model card in the bundle gives the results and the limitations.

The split is fixed by name: training never sees a subject, photograph or panorama that `eval_sets` uses.
"""
