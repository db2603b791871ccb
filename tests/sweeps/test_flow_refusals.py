"""Flow priors and their methods: what is refused before anything is loaded, in one sentence."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from sd_checkpoint import make_flow_checkpoint, make_sd3_checkpoint

from trace_bench.runs import build
from trace_bench.runs.identity import prior_identity
from trace_bench.sweeps import sweep
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep import EXIT_MISTAKE, main
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import resolve

Refused = Callable[..., str]
QUICK = ["representation=image", "prompt='a red cube'", "init=none"]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """A command that must be refused with one sentence, before anything is loaded; returns the sentence."""

    def run(*overrides: str) -> str:
        monkeypatch.setattr(sweep, "_make", lambda *_: pytest.fail("a run was started"))
        monkeypatch.setattr(build, "load_prior", lambda *_: pytest.fail("a prior was loaded"))
        assert main([*QUICK, *overrides, f"output_root={tmp_path / 'out'}"]) == EXIT_MISTAKE
        said = capsys.readouterr().err
        assert said.startswith("trace_bench: ")
        assert said.count("\n") == 1
        return said

    return run


@pytest.mark.parametrize(("method", "prior"), [("rfds", "sd21"), ("rfds_rev", "tiny")])
def test_rfds_on_a_diffusion_prior(refused: Refused, method: str, prior: str) -> None:
    said = refused(f"method={method}", f"prior={prior}")
    assert f"method={method} needs a flow prior, and prior={prior} is none; use prior=sd3 or prior=" in said


def test_sd3_without_a_network(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    said = refused("method=rfds", "prior=sd3")
    assert "The model stabilityai/stable-diffusion-3-medium-diffusers at revision ea42f8" in said
    assert "is not in the local cache" in said
    assert "python -m trace_bench.prefetch repo=" in said


def test_an_odd_latent_size(refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_sd3_checkpoint(tmp_path / "sd3", t5=False)
    capsys.readouterr()  # progress bars
    said = refused("method=rfds", "prior=sd3", f"prior.repo={folder}", "prior.resolution=504")
    assert "prior.resolution=504 does not give whole patches of latents; use a multiple of 16" in said


@pytest.fixture(params=[401, 403], ids=["at its list of files", "at a file"])
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """The address of a hub that refuses a gated repository, at once or when a file is asked for, and its
    status."""
    files = b'[{"type": "file", "path": "config.json", "size": 2, "oid": "0"}]'

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lists = request.param == 403 and "/tree/" in self.path
            self.send_response(200 if lists else request.param)
            if not lists:
                self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Type", "application/json")
            body = files if lists else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield address, request.param
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_gated_model_names_the_page_to_visit(
    hub: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    address, status = hub
    with pytest.raises(TraceBenchError) as error:
        resolve("someone/gated", "0" * 40, ["*.json"])
    said = str(error.value)
    assert said.startswith(f"The hub refuses the model someone/gated ({status}): open its page ")
    assert f"{address}/someone/gated, accept its licence there" in said
    assert "HF_TOKEN" in said


def test_a_flow_beside_a_diffusion_model_changes_only_its_own_runs(tmp_path: Path) -> None:
    """The runs of the other prior in the folder keep their names."""
    folder = make_flow_checkpoint(tmp_path / "both")
    runs = {
        prior: make_plan(["method=sds", f"prior={prior}", f"prior.repo={folder}", *QUICK], multirun=False)[0]
        for prior in ("tiny_flow", "sd15")
    }
    first = {name: prior_identity(run.job.prior)["repo"] for name, run in runs.items()}
    shutil.copy(folder / "vae" / "config.json", folder / "unet_flow" / "config.json")
    again = {name: prior_identity(run.job.prior)["repo"] for name, run in runs.items()}
    assert again["sd15"] == first["sd15"]
    assert again["tiny_flow"] != first["tiny_flow"]
