"""Downloads that break off, change, or are not described: one sentence, and nothing is kept."""

from __future__ import annotations

import hashlib
import http.server
import threading

import huggingface_hub
import pytest

from evaluation.gpteval3d.published import Published
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.system import model_files
from trace_bench.system.cache import fetch
from trace_bench.system.errors import TraceBenchError

BODY = b'["a red cube"]'


@pytest.fixture
def cut_off():
    """The address of a server that closes after half of what it promised."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))


SHA = hashlib.sha256(BODY).hexdigest()


def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(tmp_path, cut_off):
    with pytest.raises(OSError, match="broke off: IncompleteRead"):
        fetch(f"{cut_off}/a.json", SHA, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("sha256", [None, ""])
def test_a_download_without_a_sha256_is_refused_before_it_starts(tmp_path, sha256):
    with pytest.raises(ValueError, match="none is given"):
        fetch("http://127.0.0.1:1/a.json", sha256, tmp_path / "a.json")


def test_prompts_by_url(cut_off):
    spec = {"url": f"{cut_off}/a.json", "file": "a.json", "sha256": SHA}
    with pytest.raises(
        TraceBenchError, match=r"could not be downloaded from .*broke off.*prompt_set\.folder="
    ):
        load_prompt_set("x", spec)
    for missing in ({}, {"sha256": None}, {"sha256": 5}):
        with pytest.raises(TraceBenchError, match=r"has a url, but no sha256: add prompt_set\.sha256="):
            load_prompt_set("x", {"url": spec["url"], "file": "a.json"} | missing)


def test_published_files(tmp_path, cut_off):
    with pytest.raises(TraceBenchError, match=r"could not be downloaded .*broke off"):
        Published(None, tmp_path, cut_off, {"prompts.json": SHA}).prompts()
    with pytest.raises(TraceBenchError, match=r"set published\.sha256"):
        Published(None, tmp_path, cut_off, {}).prompts()


@pytest.mark.parametrize("text", ["", "{}", "[" * 99999, "\x00"])
def test_published_files_that_are_damaged(tmp_path, text):
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(TraceBenchError, match=r"prompts\.json .*get the published file again"):
        Published(tmp_path, tmp_path, "", {}).prompts()
    (tmp_path / "gpt_prompts").mkdir()
    (tmp_path / "gpt_prompts" / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TraceBenchError, match=r"x\.txt is not a text in UTF-8"):
        Published(tmp_path, tmp_path, "", {}).instruction("x")


class ProtocolError(Exception):
    """As an HTTP library raises it, not an OSError."""


@pytest.mark.parametrize(
    "error", [ProtocolError("peer closed connection"), OSError("no route"), ValueError("odd")]
)
def test_a_model_whose_download_breaks_off_is_one_sentence(monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(TraceBenchError, match=rf"someone/model .*{type(error).__name__}.*prefetch"):
        model_files.resolve("someone/model", None, ["*"])


def test_a_judge_whose_download_breaks_off_is_one_sentence(monkeypatch):
    from trace_bench.sweeps.prefetch import fetch_judge

    def broken(*_, **__):
        raise ProtocolError("peer closed connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(TraceBenchError, match=r"metric image_reward could not be downloaded \(ProtocolError"):
        fetch_judge("image_reward")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 99999])
def test_a_damaged_scheduler_is_named(tmp_path, text):
    (tmp_path / "scheduler_config.json").write_text(text)
    with pytest.raises(TraceBenchError, match=r"scheduler_config\.json .*download the model again"):
        model_files.scheduler_config(tmp_path)
