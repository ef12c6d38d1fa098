"""Which packages are installed; all else is in pyproject.toml. The models that ship go inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["hieramp*", "app*"]), "hieramp.assets"],
    package_dir={"hieramp.assets": "assets"},
)
