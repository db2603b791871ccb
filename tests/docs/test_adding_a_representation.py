"""docs/adding_a_representation.md, run verbatim in an empty folder."""

from __future__ import annotations

import pytest
from page import Page, run

from trace_bench.run_folder.manifest import read_manifest

PAGE = Page("adding_a_representation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What steps 1 and 2 make."""
    folder = tmp_path_factory.mktemp("mine")
    assert PAGE.write(folder) == ["conf/representation/voxels.yaml", "voxels.py"]
    return folder


@pytest.mark.slow
def test_the_check_is_green(folder):
    done = run(folder, PAGE.under("3.").text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " checks, none failed." in done.stdout


@pytest.mark.long
def test_it_runs_without_an_init_being_named(folder):
    """The toy protocol has init=random; this representation takes no points."""
    command = PAGE.under("4.").text.splitlines()[0]
    done = run(folder, command)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("outputs/runs/sds/voxels/toy/*/*/manifest.json")
    manifest = read_manifest(path.parent)
    assert (manifest.status, manifest.run.init, manifest.n_primitives) == ("done", "none", 32**3)
    refused = run(folder, command, "init=sphere")
    assert refused.returncode == 2
    assert "representation=voxels takes no initial points; use init=none." in refused.stderr


@pytest.mark.long
def test_it_sweeps_beside_the_others(folder):
    """One sweep in which one representation has points and the other has none."""
    done = run(folder, PAGE.under("4.").text.splitlines()[1])
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [
        read_manifest(path.parent).run
        for path in folder.glob("outputs/runs/sds/*/toy/[03]-*/*/manifest.json")
    ]
    assert {(run.representation, run.init) for run in runs} == {("gaussians", "random"), ("voxels", "none")}
