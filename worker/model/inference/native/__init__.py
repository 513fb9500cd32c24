"""Native operations in place of those that are slow in OpenVINO, put into a graph while a model is loaded.

    replacements      all of them in one graph
    deformable        deformable convolutions, of any precision
    layer_norm        layer norms of an INT8 encoder, with the quantisation behind them
    window_attention  attention inside windows of an INT8 encoder, without the copies to windows and back
    levels            how a graph quantises, and how levels enter it
    operations        the library (`worker.kernels`), and its operations

Files of models stay plain OpenVINO. What has another form than an operation supports runs on OpenVINO's own.
"""
