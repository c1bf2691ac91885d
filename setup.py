"""Where the packages are; everything else is in pyproject.toml.

The core's folder is a fixed place of an Ansible collection and the command line's is beside it, so the
package tree is put together from two roots, which pyproject.toml alone cannot say. Folders are found, not listed:
a new subpackage needs an `__init__.py` and nothing else.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "devicevm": "plugin/module_utils/devicevm",
    "devicevm.cli": "plugin/cli",
    "devicevm.data": "packaging/data",
}

packages = [*FOLDERS]
for name, folder in FOLDERS.items():
    packages += [f"{name}.{inner}" for inner in find_packages(folder)]

setup(packages=packages, package_dir=FOLDERS)
