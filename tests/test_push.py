"""Uploads to the Hugging Face Hub, tested against a stand-in for its API on this machine."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import hieramp
from hieramp.commands.main import main
from hieramp.imageset.verify import problems


class Hub(ThreadingHTTPServer):
    """Keeps what is committed; `refuse` is the status that it answers everything with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.refuse = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """The four calls of huggingface_hub that an upload of small files takes."""

    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse:
            self._answer({"error": "no"}, self.server.refuse)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/{self._kind()}me/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---")
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {"commitUrl": f"{self.server.address}/{self._kind()}me/x/commit/{'0' * 40}", "commitOid": "0" * 40}
            )
        else:
            self._answer({"error": f"unknown call {self.path}"}, 404)

    def _kind(self) -> str:
        return "datasets/" if self.server.created[-1].get("type") == "dataset" else ""

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("format", ["zip", "folder", "webdataset", "rded"])
def test_a_set_arrives_with_its_card(
    model: hieramp.Model, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture, format: str
) -> None:
    out = tmp_path / ("set.zip" if format == "zip" else "set")
    for _ in hieramp.distill(model, 1, out, format=format):  # type: ignore[arg-type]
        pass
    main(["push", str(out), "me/my-set", "--private"])
    assert capsys.readouterr().out == f"{hub.address}/datasets/me/my-set\n"
    created = hub.created[0]
    assert created["type"] == "dataset" and created["name"] == "my-set" and created["organization"] == "me"
    assert created.get("private") or created.get("visibility") == "private"
    assert 'load_dataset("me/my-set"' in hub.files["README.md"].decode()
    for name, data in hub.files.items():  # what a person gets who downloads it
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with hieramp.open_set(tmp_path / "downloaded") as copy, hieramp.open_set(out) as image_set:
        assert not list(problems(copy)) and len(copy) == 4
        assert copy.image(3).tobytes() == image_set.image(3).tobytes()


def test_a_model_arrives_with_its_card(model_folder: Path, hub: Hub) -> None:
    (model_folder / "training").mkdir(exist_ok=True)
    (model_folder / "training" / "var.safetensors").write_bytes(b"the optimiser's")
    main(["push", str(model_folder), "me/my-model"])
    assert {"config.json", "var.safetensors", "vqvae.safetensors", "README.md"} <= set(hub.files)
    assert not [name for name in hub.files if name.startswith("training")]
    assert hub.files["config.json"] == (model_folder / "config.json").read_bytes()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: hieramp\n") and "hf download me/my-model" in card
    assert hub.created[0].get("type") in (None, "model")


def said(arguments: list[str], capsys: pytest.CaptureFixture) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return int(ended.value.code or 0), text


@pytest.fixture
def small_set(model: hieramp.Model, tmp_path: Path) -> str:
    for _ in hieramp.distill(model, 1, tmp_path / "set.zip"):
        pass
    return str(tmp_path / "set.zip")


def test_what_goes_wrong_is_one_sentence(
    small_set: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status, way_out in ((401, "with a token that may write"), (403, "token that may write"), (500, "try again")):
        hub.refuse = status
        code, text = said(["push", small_set, "me/x"], capsys)
        assert code == 1 and f"refused me/x (status {status})" in text and way_out in text
    assert said(["push", small_set, "a name/with spaces"], capsys)[0] == 2
    assert "neither a distilled set nor a model" in said(["push", str(tmp_path), "me/x"], capsys)[1]
    (tmp_path / "cut.zip").write_bytes(Path(small_set).read_bytes()[:-300])
    assert said(["push", str(tmp_path / "cut.zip"), "me/x"], capsys)[0] == 2
    assert not hub.files


def test_offline_is_one_sentence(
    small_set: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    code, text = said(["push", small_set, "me/x"], capsys)
    assert code == 1 and "the Hub cannot be reached, and me/x was not uploaded" in text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be reached" in said(["push", small_set, "me/x"], capsys)[1]
