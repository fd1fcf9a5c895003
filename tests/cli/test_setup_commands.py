"""What `ray up` runs on a host before it starts Ray there, run in a home of its own, without the network."""

import os
import re
import shutil
import site
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
RUN_S_MAX = 55.0


def not_as_locked() -> list[str]:
    """The packages of the lock file that this environment has not, or has in another version."""
    lacking = []
    for name, wanted in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M):
        try:
            if version(name) != wanted:
                lacking.append(name)
        except PackageNotFoundError:
            lacking.append(name)
    return lacking


def run(home: Path, command: str) -> str:
    """As Ray's launcher runs it: by a login shell, in the user's home."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={"HOME": str(home), "PATH": path, "PIP_NO_INDEX": "1", "LANG": "C.UTF-8"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def modules(root: Path, package: str) -> set[Path]:
    """The modules of a package below *root*."""
    return {path.relative_to(root) for path in (root / package).rglob("*.py")}


@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(not_as_locked()), reason="the environment is not the one of requirements.lock")
def test_the_setup_commands_install_the_package_and_can_be_run_again(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for target, source in config["file_mounts"].items():
        if target.startswith("~/flashblocks/"):
            place = tmp_path / target.removeprefix("~/")
            place.parent.mkdir(exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    (tmp_path / ".flashblocks").mkdir(mode=0o755)  # as an earlier version left it
    commands = config["setup_commands"]
    until_venv = next(place for place, command in enumerate(commands) if "-m venv" in command) + 1
    for command in commands[:until_venv]:
        run(tmp_path, command)
    (packages,) = (tmp_path / ".flashblocks/venv/lib").glob("python*/site-packages")
    run(tmp_path, "~/.flashblocks/venv/bin/pip uninstall --quiet --yes setuptools")  # older than the locked one
    # The locked packages are there already, those of this environment: nothing has to be downloaded.
    (packages / "locked.pth").write_text("\n".join(site.getsitepackages()))
    again = [command for command in commands if "pip install" not in command]  # a head that was booted runs all anew
    for command in (*commands[until_venv:], *again):
        run(tmp_path, command)
    assert stat.S_IMODE((tmp_path / ".flashblocks").stat().st_mode) == 0o700
    assert (tmp_path / ".bashrc").read_text().count("flashblocks/venv") == 1
    said = run(tmp_path, '. ~/.bashrc; flashblocks ray ports; python -c "import actors; print(actors.__file__)"')
    assert "GCS" in said
    assert said.splitlines()[-1].startswith(str(packages)), "the delivered package, not this repository"
    for package in ("flashblocks", "raft", "tracing", "actors", "chaos", "cli"):
        assert modules(tmp_path / "flashblocks", package) <= modules(packages, package)
