# wassily on an NVIDIA GPU. It needs the NVIDIA Container Toolkit on the host.
#
#   docker build --tag wassily .
#   docker run --rm --gpus all --init --volume wassily-cache:/cache --volume "$PWD/runs:/runs" \
#     --volume "$PWD/pics:/data:ro" wassily train prior --train_data_dir /data --output_dir /runs/prior
#
# --init passes SIGTERM on before a training handles it itself, and --stop-timeout 120 gives the
# training time to save its checkpoint after `docker stop`.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

# The C compiler and the headers of Python are for --compile alone.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev \
    && rm -rf /var/lib/apt/lists

RUN python3 -m venv /opt/wassily
ENV PATH=/opt/wassily/bin:$PATH
ENV PIP_NO_CACHE_DIR=1
ENV PYTHONUNBUFFERED=1

# Only the files that the wheel is built from: other changes keep this layer.
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY wassily wassily
RUN python -m pip install --constraint constraints.txt .

# Files in mounted folders belong to this user. For another number: --build-arg UID="$(id -u)"
ARG UID=1000
RUN userdel --remove ubuntu \
    && useradd --create-home --uid $UID wassily \
    && mkdir -p /cache /runs \
    && chown wassily:wassily /cache /runs
ENV XDG_CACHE_HOME=/cache
ENV HF_HOME=/cache/huggingface
USER wassily
WORKDIR /runs
VOLUME ["/cache", "/runs"]
ENTRYPOINT ["wassily"]
CMD ["--help"]
