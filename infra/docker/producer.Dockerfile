# The producer: the base of maskmill, without OpenVINO and NumPy.
#
#   docker build --file infra/docker/producer.Dockerfile --tag maskmill-producer .
#
# For a release, set PYTHON_TAG to a tag with a digest: 3.12-slim-bookworm@sha256:...
ARG PYTHON_TAG=3.12-slim-bookworm

FROM python:${PYTHON_TAG} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY infra/docker/build.lock infra/docker/producer.lock infra/docker/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement infra/docker/build.lock
RUN python -m venv --without-pip /opt/maskmill \
 && /opt/build/bin/pip --python /opt/maskmill/bin/python install --require-hashes --requirement infra/docker/producer.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY producer producer
# Without --no-deps: pip refuses the wheel if the lock file lacks a package that it requires.
RUN /opt/build/bin/hatchling build --target wheel \
 && /opt/build/bin/pip --python /opt/maskmill/bin/python install --no-index --find-links dist maskmill

FROM python:${PYTHON_TAG}
LABEL org.opencontainers.image.title="maskmill producer" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin maskmill
COPY --from=build /opt/maskmill /opt/maskmill
ENV PATH=/opt/maskmill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
# The container runs one command to its end; its exit code shows the result.
HEALTHCHECK NONE
ENTRYPOINT ["producer"]
CMD ["--help"]
