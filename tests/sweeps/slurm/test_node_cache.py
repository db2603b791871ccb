"""The node's cache of compiled code is created privately, or refused."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from trace_bench.sweeps.planning import Fixed, launcher_of


def set_up(tmp):
    """Run the job script's lines on the node's cache, as Slurm's shell does."""
    settings = launcher_of(Fixed(["hydra/launcher=slurm", "output_root=there"]))
    lines = [line for line in settings["setup"] if "NODE_CACHE" in line]
    script = "\n".join([*lines, "echo ready"])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment | {"TMPDIR": str(tmp)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, tmp / f"trace_bench-{os.getuid()}"


def test_it_is_created_for_this_user_alone_and_used_again(tmp_path):
    for _ in range(2):
        done, folder = set_up(tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name for path in folder.iterdir()} == {"inductor", "triton"}


def others_may_write(folder):
    folder.mkdir()
    folder.chmod(0o777)


def is_a_link(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def is_a_link_to_nothing(folder):
    folder.symlink_to(folder.parent / "nowhere")


def is_a_file(folder):
    folder.touch(mode=0o700)


def is_somebody_elses(folder):
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize(
    "how", [others_may_write, is_a_link, is_a_link_to_nothing, is_a_file, is_somebody_elses]
)
def test_anything_else_ends_the_job_with_one_sentence(tmp_path, how):
    how(tmp_path / f"trace_bench-{os.getuid()}")
    done, folder = set_up(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"The folder {folder} of this node belongs to somebody else" in done.stderr
    assert done.stderr.count("\n") == 1
