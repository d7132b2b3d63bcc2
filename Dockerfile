# Two images from one file:
#   service  the HTTP API with the inspection of teachers; contains no torch
#   worker   everything above plus torch and ONNX Runtime
#
#   docker build --target service .
#   docker build --target worker .                                       torch as the default package index has it
#   docker build --target worker --build-arg TORCH_INDEX_URL=<index> .   torch from PyTorch's CPU or CUDA wheel index
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV LANG=C.UTF-8 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/dfkd/bin:$PATH

# Dependencies are installed before the sources are copied, so that an edited source file does not install them again.
FROM base AS service-build
RUN python3 -m venv /opt/dfkd
WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
RUN pip install -c constraints.txt '.[server,postgres,s3]'
COPY dfkd dfkd
COPY dfkd_core dfkd_core
COPY jobs jobs
COPY service service
COPY worker worker
RUN pip install --no-deps --force-reinstall .

FROM base AS worker-build
# Empty: the default package index decides which torch build it is.
ARG TORCH_INDEX_URL=""
RUN python3 -m venv /opt/dfkd
WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
# Only torch itself may come from that index, and nothing else with it.
RUN if [ -n "${TORCH_INDEX_URL}" ]; then \
        pip install --no-deps -c constraints.txt --index-url "${TORCH_INDEX_URL}" torch; \
    fi \
    && pip install -c constraints.txt '.[worker,postgres,s3]'
COPY dfkd dfkd
COPY dfkd_core dfkd_core
COPY jobs jobs
COPY service service
COPY worker worker
RUN pip install --no-deps --force-reinstall .

# The base of both images: a user without a login shell, and one writable directory.
FROM base AS runtime
RUN groupadd --gid 10001 dfkd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin dfkd \
    && install -d -o 10001 -g 10001 -m 0750 /data
ENV DFKD_DATA_DIR=/data \
    DFKD_LOG_FORMAT=json \
    HOME=/tmp
WORKDIR /data
COPY containers/service_health.py containers/worker_health.py /opt/health/

FROM runtime AS service
COPY --from=service-build /opt/dfkd /opt/dfkd
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "/opt/health/service_health.py"]
CMD ["python", "-m", "service", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS worker
COPY --from=worker-build /opt/dfkd /opt/dfkd
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["python", "/opt/health/worker_health.py"]
CMD ["python", "-m", "worker"]
