# Workers, for Linux on x86-64. The last target is the worker; `--target flower` adds Flower.
#
#   docker build --file infra/docker/worker.Dockerfile --tag maskmill-worker .
#
# For a release, set PYTHON_TAG to a tag with a digest: 3.12-slim-bookworm@sha256:...
ARG PYTHON_TAG=3.12-slim-bookworm
ARG BUILD_TAG=3.12-bookworm

# The full image includes a C++ compiler. Later stages copy only /opt/maskmill from this one.
FROM python:${BUILD_TAG} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY infra/docker/build.lock infra/docker/worker.lock infra/docker/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement infra/docker/build.lock
RUN python -m venv --without-pip /opt/maskmill \
 && /opt/build/bin/pip --python /opt/maskmill/bin/python install --require-hashes --requirement infra/docker/worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY producer producer
# The native kernels are built against the headers of the installed OpenVINO, then packed into the wheel. Without
# --no-deps: pip refuses the wheel if the lock file lacks a package that it requires.
RUN PATH=/opt/build/bin:$PATH /opt/maskmill/bin/python -m worker.cli kernels build \
 && MASKMILL_WHEEL_KERNELS=1 /opt/build/bin/hatchling build --target wheel \
 && /opt/build/bin/pip --python /opt/maskmill/bin/python install --no-index --find-links dist 'maskmill[hub]'
# Remove files that a CPU worker never loads: headers, GPU and NPU plugins, readers of other formats (80 MB).
WORKDIR /opt/maskmill
RUN rm -rf lib/python3.*/site-packages/openvino/include lib/python3.*/site-packages/openvino/cmake \
 && find lib -path '*/openvino/libs/*' \( -name '*intel_gpu*' -o -name '*intel_npu*' -o -name cache.json \
      -o -name '*_frontend.so*' ! -name '*_ir_frontend.so*' \) -delete

FROM build AS build-flower
WORKDIR /src
COPY infra/docker/flower.lock infra/docker/
RUN /opt/build/bin/pip --python /opt/maskmill/bin/python install --require-hashes --no-deps \
      --requirement infra/docker/flower.lock \
 && /opt/build/bin/pip --python /opt/maskmill/bin/python install --no-index --find-links dist 'maskmill[flower]'

FROM python:${PYTHON_TAG} AS base
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && useradd --uid 10001 --user-group --home-dir /var/cache/maskmill --create-home --shell /usr/sbin/nologin maskmill
ENV PATH=/opt/maskmill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001

FROM base AS flower
COPY --from=build-flower /opt/maskmill /opt/maskmill
EXPOSE 5555
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5555/healthcheck', timeout=4)"]
ENTRYPOINT ["celery", "-A", "worker.app", "flower"]
CMD ["--address=0.0.0.0", "--port=5555"]

FROM base AS worker
LABEL org.opencontainers.image.title="maskmill worker" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/maskmill /opt/maskmill
# A volume keeps fetched bundles and compiled models when a container is replaced. The rest is read-only; /tmp is a tmpfs.
ENV MASKMILL_MODEL__CACHE_DIR=/var/cache/maskmill \
    MASKMILL_WORKER__LOG_FORMAT=json \
    MASKMILL_METRICS__ADDRESS=0.0.0.0 \
    MASKMILL_METRICS__PORT=9470
VOLUME /var/cache/maskmill
EXPOSE 9470
# /healthz, not /readyz: an orchestrator that restarts unhealthy containers must not do so because Redis is down.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['MASKMILL_METRICS__PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["worker"]
CMD ["start"]
