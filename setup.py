"""Packaging of lilo_jax: all metadata stands here; `pyproject.toml` holds tool settings only."""

from pathlib import Path

from setuptools import find_packages, setup

PLOT = ["matplotlib>=3.8"]
SINKS = {  # trackers that records also go to: `--log NAME`
    "mlflow": ["mlflow>=3.0"],
    "tensorboard": ["tensorboard>=2.16"],
    "trackio": ["trackio>=0.33"],
    "wandb": ["wandb>=0.21"],
}
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
PEERS = ["rlax==0.1.9", "torch==2.13.0", "transformers==5.23.0", "trl==1.16.0"]  # what losses are compared with
GCS = ["gcsfs>=2025.3"]  # runs, models and data in gs://
S3 = ["s3fs>=2025.3"]  # and in s3://
GGUF = ["gguf>=0.17"]  # reads the files of llama.cpp: `lilo import gguf`
DEV = [
    *PLOT,
    *GGUF,
    "beartype>=0.20",  # checks shapes and dtypes of signatures in tests
    "datasets>=4.0",  # writes the files that are read in tests
    "hypothesis>=6.100",
    "ipykernel>=6.17",  # with nbclient and nbformat: what runs the notebooks of colab/
    "mypy>=1.13",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "playwright>=1.49",  # drives Chromium, if there is one: how a report looks
    "pre-commit>=4.0",
    "psutil>=5.9",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.8",
    "torch>=2.6",  # with transformers: what imported models are compared with
    "transformers>=5.0",
]

setup(
    name="lilo-jax",
    version="0.1.0",
    description="RL post-training of language models in JAX that chooses which questions to train on",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["lilo_jax*", "experiments*"]),
    package_data={"lilo_jax": ["py.typed", "report/page.*s", "tasks/samples/*/*.jsonl", "tasks/samples/*/*.xml"]},
    install_requires=[
        "annotated-types>=0.7",
        "jax>=0.7.2",  # as Colab has; `import lilo_jax` refuses a flax that is too old for a newer jax
        "flax>=0.11.2",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.25,<1",  # 1 has another interface: see lilo_jax/storage/checkpoints.py
        "chex>=0.1.90",
        "datasets>=4.0",
        "filelock>=3.13",
        "fsspec>=2025.3",
        "huggingface-hub>=0.34",
        "jaxtyping>=0.3.2",
        "jinja2>=3.1.6",
        "math-verify>=0.9",  # brings any antlr that its grammar is compiled for: Colab has 4.9.3
        "ml-dtypes>=0.5",
        "safetensors>=0.8",
        "sentencepiece>=0.2",
        "tokenizers>=0.21",
        "numpy>=2.0",
        "pebble>=5.0.7",
        "pyarrow>=15.0",
        "rich>=13.7",
        "tqdm>=4.66",
        "tyro>=0.9.1",
        "xxhash>=3.5",
    ],
    extras_require={
        "plot": PLOT,
        "colab": [*PLOT, "chex<0.1.91"],  # a later one would replace Colab's absl-py and toolz
        "tpu": ["jax[tpu]"],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "aot": ["jax[tpu]"],
        "tasks": ["reasoning-gym>=0.1.19"],
        **SINKS,
        "gcs": GCS,
        "s3": S3,
        "gguf": GGUF,
        "docs": DOCS,
        "peers": PEERS,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["lilo = lilo_jax.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
