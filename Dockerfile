# All of specgan in one image: training, drawing, and the web service.
#
#   docker build -t specgan .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" specgan train data=folder data.audio_dir=clips
#   docker run --rm -p 8000:8000 -v "$PWD:/work" specgan serve host=0.0.0.0 ckpt_path=runs/<run>/checkpoints/best.ckpt
#
# The image trains on a GPU with `docker run --gpus all` (NVIDIA's container toolkit) and on a CPU without. For a CPU alone
# it is a fifth of the size with PyTorch's CPU wheels: --build-arg TORCH_INDEX=<the address that pytorch.org names for them>.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=""
ARG EXTRAS="serve,sweeps,tensorboard"
# Any user may start the container, also one that it does not know: PyTorch asks for the name, others for the home.
ENV HOME=/home/anyone USER=anyone PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN mkdir --mode=1777 "$HOME" /work

# The dependencies are a layer of their own: a change of the code does not install them again.
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
RUN mkdir -p conf specgan && touch train.py generate.py preprocess.py specgan/__init__.py \
    && PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" python -m pip install ".[${EXTRAS}]"
COPY train.py generate.py preprocess.py ./
COPY conf conf
COPY specgan specgan
RUN python -m pip install --no-deps --force-reinstall . && rm -rf /source

WORKDIR /work
USER 1000:1000
EXPOSE 8000
ENTRYPOINT ["specgan"]
CMD ["--help"]
