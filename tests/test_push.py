"""A run's model card, read back by the hub's own library; and its upload to a hub on this machine."""

import base64
import http.server
import json
import pathlib
import sys
import threading

import huggingface_hub
import pytest
from directories import opened
from huggingface_hub import ModelCard
from test_sinks import write_records

from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.errors import RunError, UsageError
from lilo_jax.pretrained import push as module
from lilo_jax.pretrained.card import interval_of, model_card
from lilo_jax.pretrained.push import push

WEIGHTS = b"weights \x00\x01"


@pytest.fixture
def directory(tmp_path):
    found = opened(tmp_path / "mine", Config(num_steps=4, seed=7))
    write_records(found, 4)
    return found


@pytest.fixture
def run(directory, monkeypatch):
    """A run whose export is one file: the true one is tested in test_pretrained.py, and below."""
    monkeypatch.setattr(
        module, "export", lambda run, output, dtype: (output / "model.safetensors").write_bytes(WEIGHTS)
    )
    monkeypatch.setattr("lilo_jax.pretrained.card.RunDirectory.newest_step", lambda self: 4)
    return directory


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as an upload needs."""

    def do_GET(self):
        self._answer(404, {"error": "nothing here"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.status != 200 and self.server.refused in self.path:
            return self._answer(self.server.status, {"error": "you may not"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created = asked
            name = "/".join(filter(None, [asked.get("organization") or "me", asked["name"]]))
            return self._answer(200, {"url": f"{self.server.address}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = f"{self.server.address}/{self.path.split('/')[3]}/{self.path.split('/')[4]}/commit/{'0' * 40}"
            return self._answer(200, {"commitUrl": commit, "commitOid": "0" * 40, "success": True})
        return self._answer(404, {"error": self.path})

    def _answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.files, server.created = [], {}, None
    server.status, server.refused = 200, ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    yield server
    server.shutdown()
    server.server_close()


# ---------------------------------------------------------------------------------------------------------------- card
def test_the_header_is_read_by_the_hubs_library_and_the_text_has_the_runs_numbers(directory):
    text = str(model_card(directory, "me/mine", online=False))
    header = ModelCard(text, ignore_metadata_errors=False).data
    assert header.to_dict()["tags"] == ["lilo_jax", "reinforcement-learning", "ppo", "lilo"]
    (result,) = header.eval_results
    assert (result.metric_value, result.dataset_split, result.metric_type) == (0.4, "test", "accuracy")
    assert (header.base_model, header.license, header.library_name) == (None, None, "transformers")
    for line in (
        "| steps | 4 of 4, 64 questions x 8 samples each |".replace("64", str(Config().rollout.questions)),
        "| tokens generated for training | 40 |",
        "| base model | random weights |",
        "| seed | 7 |",
        "| test | 0.400 | 0.302 to 0.498 | 50 | sampled |",
        "| 0 | 0 | 0.000 |",
        "| 4 | 40 | 0.400 |",
        f"| commit of lilo_jax | {directory.environment()['commit'] or 'not known'} |",
        "The run was not finished",
    ):
        assert line in text, f"{line}\n{text}"


@pytest.fixture(autouse=True)
def evaluated(monkeypatch):
    """Evaluations as they are recorded, and a run with a checkpoint."""

    def evaluate(directory, step):
        record = {"accuracy": step / 10, "standard_error": 0.05, "questions": 50, "method": "sampled"}
        directory.append("eval", {"step": step, "split": "test", **record})

    monkeypatch.setattr("test_sinks.evaluate", evaluate)
    monkeypatch.setattr("lilo_jax.pretrained.card.RunDirectory.newest_step", lambda self: 4)


def test_intervals_are_those_recorded_or_of_the_standard_error():
    assert interval_of({"accuracy": 0.5, "low": 0.4, "high": 0.7, "standard_error": 0.9}) == (0.4, 0.7)
    assert interval_of({"accuracy": 0.5, "standard_error": 0.05}) == pytest.approx((0.402, 0.598))
    assert interval_of({"accuracy": 0.5, "standard_error": None}) is None


def test_the_base_model_and_its_licence_come_through_runs_from_a_models_own_card(tmp_path):
    """The run started from a run that started from a directory with a card."""
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: org/tiny\n---\nIt is tiny.\n")
    first = opened(tmp_path / "first", configuration.replace(Config(), model__path=str(model), sft__steps=0))
    second = opened(tmp_path / "second", configuration.replace(Config(), model__path=str(first.path), sft__steps=0))
    write_records(second, 2)
    text = str(model_card(second, "mine", online=False))
    header = ModelCard(text, ignore_metadata_errors=False).data
    assert (header.base_model, header.license) == ("org/tiny", "apache-2.0")
    assert "| licence of the base model | apache-2.0 |" in text
    hub_id = configuration.replace(Config(), model__path="org/large", sft__steps=0)
    third = opened(tmp_path / "third", hub_id)
    header = ModelCard(str(model_card(third, "mine", online=False))).data
    assert (header.base_model, header.license, header.eval_results) == ("org/large", None, None)


# -------------------------------------------------------------------------------------------------------------- upload
def test_an_upload_puts_the_weights_and_the_card_into_ones_own_repository(run, hub):
    assert push(str(run.path), offline=None) == f"{hub.address}/me/mine"
    assert hub.files["model.safetensors"] == WEIGHTS
    assert ModelCard(hub.files["README.md"].decode()).data.eval_results[0].metric_value == 0.4
    assert 'from_pretrained("me/mine")' in hub.files["README.md"].decode()
    assert {token for _, token in hub.asked} <= {"Bearer hf_mine", None}
    assert "/api/validate-yaml" in [path for path, _ in hub.asked]
    assert [p.name for p in run.path.parent.iterdir()] == ["mine"]  # nothing is left behind


def test_a_repository_can_be_named_and_private(run, hub):
    assert push(str(run.path), "org/model", offline=None, private=True) == f"{hub.address}/org/model"
    assert (hub.created["organization"], hub.created["name"]) == ("org", "model")
    assert "private" in json.dumps(hub.created)


@pytest.mark.parametrize(("status", "says"), [(401, "hf auth login"), (403, "hf auth login"), (400, "the hub refuses")])
@pytest.mark.parametrize("at", ["/repos/create", "/commit/"])
def test_a_refusal_is_one_sentence_and_leaves_nothing(run, hub, status, says, at):
    hub.status, hub.refused = status, at
    with pytest.raises(UsageError, match=says):
        push(str(run.path), "org/model", offline=None)
    assert [p.name for p in run.path.parent.iterdir()] == ["mine"]


def test_without_a_network_what_would_be_uploaded_is_kept(run, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"cannot be reached .*: .*mine-hub holds .* `hf upload org/model .*mine-hub`"):
        push(str(run.path), "org/model", offline=None)
    kept = run.path.with_name("mine-hub")
    assert (kept / "model.safetensors").read_bytes() == WEIGHTS
    assert ModelCard.load(kept / "README.md").data.library_name == "transformers"
    with pytest.raises(UsageError, match="mine-hub is in the way"):
        push(str(run.path), "org/model", offline=None)


def test_mistakes_are_one_sentence(run, tmp_path):
    with pytest.raises(UsageError, match=r"no run in .*nowhere"):
        push(str(tmp_path / "nowhere"), offline=tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be the name of a repository"):
        push(str(run.path), "a/b/c", offline=None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError, match="full is not empty: pass another --offline"):
        push(str(run.path), offline=tmp_path / "full")


@pytest.mark.slow
def test_offline_writes_what_transformers_and_the_hubs_library_read(tiny_run, tmp_path, monkeypatch, capsys):
    import transformers

    monkeypatch.undo()
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["lilo", "push", str(tiny_run[1].path), "--offline", str(output)])
    cli.main()
    assert capsys.readouterr().out.strip() == str(output)
    card = ModelCard.load(output / "README.md", ignore_metadata_errors=False)
    accuracy = {record["split"]: record["accuracy"] for record in tiny_run[1].read("eval")}
    assert {result.dataset_split: result.metric_value for result in card.data.eval_results} == accuracy
    model = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert model.config.num_hidden_layers == tiny_run[0].model.num_layers
    assert pathlib.Path(output / "tokenizer_config.json").is_file() or any(output.glob("*.model"))
