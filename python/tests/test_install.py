"""The wheels beside upstream's real one: no order of installing and removing breaks either, and it is said which one is used."""

import base64
import csv
import hashlib
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import rig

PIP = [str(rig.TOP / "target" / "pyvenv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
WHEELS = Path(os.environ["MTE_WHEELS"])
UPSTREAM = "mooncake-transfer-engine-non-cuda"
WHICH = "import mooncake.engine as m; print(m.__file__); e = m.TransferEngine(); print(e.initialize('127.0.0.1', 'P2PHANDSHAKE', 'tcp', ''))"


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


NATIVE, COMPATIBLE = only(WHEELS, "mooncake_te-*.whl"), only(WHEELS, "mooncake_te_compat-*.whl")
UPSTREAM_WHEEL = only(rig.TOP / "target" / "pyvenv" / "upstream", "*.whl")


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder):
        venv.create(folder)
        self.python = folder / "bin" / "python"
        self.site = only(folder, "lib/python3*/site-packages")

    def pip(self, *arguments):
        done = subprocess.run([*PIP, "--python", str(self.python), *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def install(self, *wheels):
        self.pip("install", "--no-deps", "--no-index", "--force-reinstall", *wheels)

    def remove(self, *names):
        self.pip("uninstall", "-y", *names)

    def run(self, *arguments, **environment):
        """Standard output and standard error."""
        clean = {key: value for key, value in rig.ENVIRONMENT.items() if key not in ("PYTHONPATH", "MOONCAKE_TE_LIBRARY")}
        done = subprocess.run([self.python, *arguments], capture_output=True, text=True, env={**clean, **environment}, cwd="/")
        return done.returncode, done.stdout, done.stderr

    def which(self, **environment):
        """The imported module's kind, and whether a warning was shown."""
        status, out, err = self.run("-c", WHICH, **environment)
        assert status == 0, err
        file, result = out.split()
        assert result == "0", (out, err)
        kind = {"engine.so": "upstream", "engine.py": "ours"}[Path(file).name]
        return kind, "two packages provide mooncake.engine" in err

    def intact(self, pattern):
        """Every file of an installed distribution is what its wheel had."""
        for path, digest, _ in csv.reader(only(self.site, pattern + "/RECORD").open()):
            if digest:
                kind, _, expected = digest.partition("=")
                actual = base64.urlsafe_b64encode(hashlib.new(kind, (self.site / path).read_bytes()).digest()).rstrip(b"=").decode()
                assert actual == expected, path


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "environment")


def test_ours_first_then_upstream(environment):
    environment.install(NATIVE, COMPATIBLE)
    assert environment.which() == ("ours", False)
    environment.install(UPSTREAM_WHEEL)
    assert environment.which() == ("upstream", True)
    environment.intact("mooncake_te_compat-*.dist-info")
    environment.intact("mooncake_transfer_engine_non_cuda-*.dist-info")
    environment.remove(UPSTREAM)
    assert environment.which() == ("ours", False)
    environment.intact("mooncake_te_compat-*.dist-info")
    environment.remove("mooncake-te-compat", "mooncake-te")
    assert not [path for path in environment.site.iterdir() if "mooncake" in path.name]


def test_upstream_first_then_ours_and_the_switch(environment):
    environment.install(UPSTREAM_WHEEL)
    environment.install(NATIVE, COMPATIBLE)
    assert environment.which() == ("upstream", True)
    assert environment.which(MOONCAKE_ENGINE="upstream") == ("upstream", False)
    assert environment.which(MOONCAKE_ENGINE="mooncake-te") == ("ours", False)
    status, out, err = environment.run("-W", "error", "-c", "import mooncake.engine")
    assert status != 0 and "Upstream's is used" in err and "MOONCAKE_ENGINE" in err
    status, out, err = environment.run("-m", "mooncake_te_compat")
    assert status == 0 and "upstream's" in out and "two packages" in err
    # Upstream's other modules stay reachable beside ours.
    status, out, err = environment.run("-c", "import mooncake.engine, mooncake.cli; print('both')", MOONCAKE_ENGINE="mooncake-te")
    assert out == "both\n", err
    environment.install(UPSTREAM_WHEEL)  # as an upgrade would
    environment.intact("mooncake_te_compat-*.dist-info")
    environment.remove("mooncake-te-compat", "mooncake-te")
    assert environment.which() == ("upstream", False)
    environment.intact("mooncake_transfer_engine_non_cuda-*.dist-info")


def test_a_switch_that_cannot_be_followed_says_so(environment):
    environment.install(NATIVE, COMPATIBLE)
    status, _, err = environment.run("-c", "import mooncake.engine", MOONCAKE_ENGINE="upstream")
    assert status != 0 and "ImportError" in err and "not installed" in err
    status, out, err = environment.run("-m", "mooncake_te_compat", MOONCAKE_ENGINE="something")
    assert "mooncake-te-compat's" in out and "means nothing" in err
    environment.remove("mooncake-te")
    status, _, err = environment.run("-c", "import mooncake.engine")
    assert status != 0 and "mooncake_te" in err


def test_without_site_processing_ours_is_found_as_well(environment, tmp_path):
    """`pip install --target` and PYTHONPATH do not run .pth files."""
    environment.pip("install", "--no-deps", "--no-index", "--target", tmp_path / "target", NATIVE, COMPATIBLE)
    assert environment.which(PYTHONPATH=str(tmp_path / "target")) == ("ours", False)


def test_a_library_of_another_kind_is_refused_with_a_text(environment):
    environment.install(NATIVE)
    status, _, err = environment.run("-c", "import mooncake_te", MOONCAKE_TE_LIBRARY="/no/such/file.so")
    assert status != 0 and "ImportError" in err and "/no/such/file.so" in err
    status, _, err = environment.run("-c", "import mooncake_te", MOONCAKE_TE_LIBRARY="libc.so.6")
    assert status != 0 and "ImportError" in err and "libc.so.6 has no" in err


def test_what_the_wheels_contain():
    native, compatible = (set(zipfile.ZipFile(wheel).namelist()) for wheel in (NATIVE, COMPATIBLE))
    assert {"mooncake_te/libtransfer_engine.so", "mooncake_te/bin/mte", "mooncake_te/py.typed", "mooncake_te/LICENSE"} <= native
    assert {"mooncake/engine.py", "mooncake-stubs/engine.pyi", "mooncake-stubs/py.typed", "mooncake_te_compat.pth"} <= compatible
    assert re.fullmatch(r"mooncake_te-[0-9.]+-py3-none-manylinux_2_\d+_\w+\.whl", NATIVE.name)
    assert COMPATIBLE.name.endswith("-py3-none-any.whl")
    # Nothing of upstream's names, now or in 0.3.14.
    theirs = set(zipfile.ZipFile(UPSTREAM_WHEEL).namelist()) | {"mooncake/engine.pyi", "mooncake/py.typed", "mooncake/__init__.py"}
    assert not theirs & (native | compatible)


def test_the_console_script_is_the_tool():
    tool = Path(sys.executable).with_name("mte")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True)
    import mooncake_te

    assert (said.returncode, said.stdout) == (0, f"mte {mooncake_te.__version__}\n")
    assert "--listen" in subprocess.run([tool, "metadata-server", "--help"], capture_output=True, text=True).stdout
