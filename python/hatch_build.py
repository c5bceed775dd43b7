"""Hooks of both wheels: the version is Cargo.toml's; the native wheel gets the library, the program mte and an honest tag.

MTE_LIB and MTE_TOOL name the files; scripts/wheel.sh sets them.
"""

import os
import platform
import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

TOP = Path(__file__).resolve().parent.parent


def version():
    return re.search(r'^version = "([^"]+)"', (TOP / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def needed_glibc(path):
    """The newest glibc whose symbols an ELF file needs. Those names stand in its string table, each between NULs."""
    found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)", path.read_bytes())
    return max((int(major), int(minor)) for major, minor in found)


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata):
        metadata["version"] = version()
        if "dependencies" in metadata.get("dynamic", []):
            # The same version, because it uses what is private there.
            metadata["dependencies"] = [f"mooncake-te=={version()}"]


class CustomBuildHook(BuildHookInterface):
    def initialize(self, _version, build_data):
        files = {Path(os.environ["MTE_LIB"]): "mooncake_te/libtransfer_engine.so"}
        if os.environ.get("MTE_TOOL"):
            files[Path(os.environ["MTE_TOOL"])] = "mooncake_te/bin/mte"
        major, minor = max(needed_glibc(path) for path in files)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{major}_{minor}_{platform.machine()}"
        build_data["force_include"].update({str(path): place for path, place in files.items()})
