"""Models: the bundle format, the sources that bundles come from, loading, and inference.

`worker.model.inference` imports OpenVINO; everything else is plain Python and safe to import in any process. A Celery
parent must never import OpenVINO, which reads its set of CPUs once and keeps it across a fork.
"""
