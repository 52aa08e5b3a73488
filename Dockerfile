# metier on a CPU. `docker build -t metier .`, then, in the folder with your data:
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/work" -v metier-cache:/cache metier init support.csv
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# torch as it comes for a CPU: other builds bring gigabytes that a CPU has no use for.
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu ".[sentencepiece,serve]"

# Whoever runs it: models are kept in /cache, a writable home that a volume can hold.
RUN useradd --create-home metier && mkdir --mode 1777 /cache /work
ENV HF_HOME=/cache HOME=/cache
USER metier
WORKDIR /work
ENTRYPOINT ["metier"]
