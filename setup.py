"""Package metadata; exact tested versions stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "fairseq_bert_kd/__init__.py").read_text())[1]
REPORT = ["jinja2>=3.1", "matplotlib>=3.8", "rouge-score>=0.1.2"]
EXAMPLES = ["doit>=0.36", *REPORT]
DOCS = ["sphinx>=8", "myst-parser>=4", "furo>=2024.8"]

setup(
    name="fairseq-bert-kd",
    version=VERSION,
    description="Distil BERT into any fairseq sequence-to-sequence model (Chen et al., ACL 2020)",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["fairseq_bert_kd", "fairseq_bert_kd.*"]),
    package_data={"fairseq_bert_kd.report": ["templates/*"]},
    python_requires=">=3.10,<3.13",
    # fairseq itself is left to the user: its declared requirements pull a torchaudio that breaks
    # transformers, and the version that runs on Python 3.11+ has another name (see docs/installation.md).
    install_requires=[
        "torch>=2.6",  # the first with safe loading of checkpoints by default
        "transformers>=4.48,<6",
        "tokenizers>=0.21",
        "sentencepiece>=0.2",
        "sacrebleu>=2.4",
        "numpy>=1.26",
        "scipy>=1.11",
        "tqdm>=4.66",
        # what fairseq's text tasks import, since it is installed without its dependencies
        "hydra-core>=1.3,<1.4",
        "omegaconf>=2.3,<2.4",
        "bitarray>=2",
        "cffi",
        "regex",
        "scikit-learn",
        "packaging",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "hypothesis>=6",
            "pytest-cov>=5",
            "pytest-xdist>=3",
            "pytest-timeout>=2.2",
            "pytest-instafail>=0.5",
            "ruff",
            "mypy>=1.11",
            "pyarrow>=14",
            *EXAMPLES,
            *DOCS,
            "ctranslate2>=4.5",
            "sacremoses>=0.1",
            "onnx>=1.16",
            "onnxruntime>=1.17",
        ],
        "recipes": ["sacremoses>=0.1"],  # tokenised BLEU by the rules of Moses
        "report": REPORT,
        "examples": EXAMPLES,
        "comet": ["unbabel-comet>=2.2"],  # a learned metric for score and report
        "docs": DOCS,
        "export": ["pyarrow>=14"],
        "onnx": ["onnx>=1.16"],
        "tensorboard": ["tensorboardX>=2.6"],
    },
    entry_points={"console_scripts": ["fairseq-bert-kd = fairseq_bert_kd.cli.main:cli_main"]},
)
