"""Against a stand-in of the hub that breaks off, redirects, refuses and throttles."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download

from metier import download
from metier.errors import DoesNotFit, ModelError
from metier.events import Event, silent
from metier.hub import find
from tests.standin import StandIn, commit_of, etag

NAME = "owner/name"
WEIGHTS = random.Random(17).randbytes(100_000)
FILES = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": WEIGHTS}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a fetch would have waited between its attempts."""
    found: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=found.append))
    return found


def fetch(revision: str | None = None) -> Path:
    return download.fetch(NAME, revision, "", silent)


def whole(snapshot: Path) -> bool:
    return {path.name: path.read_bytes() for path in snapshot.iterdir()} == FILES


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.name.endswith((".part", ".incomplete"))]


def test_a_download_cut_at_ten_places_resumes_to_the_same_bytes(
    standin: StandIn, waits: list[float], tmp_path: Path
) -> None:
    standin.add(NAME, FILES)
    cuts = [1, 2, 4095, 4096, 4097, 50_000, 65_536, 65_537, 99_998, 99_999]
    standin.cuts["model.safetensors"] = list(cuts)
    assert whole(fetch())
    asked = [int(each.headers["Range"][6:-1]) for each in standin.requests if "Range" in each.headers]
    assert sorted(set(asked)) == cuts
    assert standin.sent["model.safetensors"] == len(WEIGHTS), "not a byte was sent twice"
    assert waits == []
    assert not left_behind(tmp_path)


def test_what_a_killed_process_had_is_not_fetched_again(standin: StandIn, tmp_path: Path) -> None:
    standin.add(NAME, FILES)
    standin.cuts["model.safetensors"], standin.stall = [70_000], threading.Event()
    code = f"from metier import download; from metier.events import silent; download.fetch({NAME!r}, None, '', silent)"
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | standin.environment(tmp_path / "home"))
    part = tmp_path / "home/hub/models--owner--name/blobs" / f"{etag(WEIGHTS)}.part"
    while child.poll() is None and not (part.exists() and part.stat().st_size == 70_000):
        pass
    child.kill()
    child.wait()
    again = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | standin.environment(tmp_path / "home"), check=False
    )
    assert again.returncode == 0
    assert standin.sent["model.safetensors"] == len(WEIGHTS)
    assert whole(next((tmp_path / "home/hub/models--owner--name/snapshots").iterdir()))


def test_a_hub_that_knows_no_ranges_is_read_from_the_start(standin: StandIn) -> None:
    standin.add(NAME, FILES)
    standin.cuts["model.safetensors"], standin.ranges = [70_000], False
    assert whole(fetch())


def test_the_newer_storage_is_not_asked(standin: StandIn) -> None:
    """Its client would neither resume nor tell us the bytes."""
    standin.add(NAME, FILES)
    standin.xet = True
    assert whole(fetch())
    assert not any("xet" in each.path for each in standin.requests)


def test_the_stand_in_serves_data_sets_to_the_library_itself(standin: StandIn, tmp_path: Path) -> None:
    standin.add(NAME, {"train.csv": b"a,b\n1,2\n", "large.csv": WEIGHTS}, kind="datasets")
    folder = Path(snapshot_download(NAME, repo_type="dataset"))
    assert (folder / "large.csv").read_bytes() == WEIGHTS
    assert (folder / "train.csv").read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_wrong_checksum_is_refused(standin: StandIn, tmp_path: Path, name: str) -> None:
    standin.add(NAME, FILES)
    standin.broken.add(name)
    with pytest.raises(ModelError, match=rf"{name}: what arrived has not the checksum") as caught:
        fetch()
    assert "run the same command again" in caught.value.hint
    assert not left_behind(tmp_path)
    assert download.cached(NAME, None) is None
    standin.broken.clear()
    assert whole(fetch())


def test_a_token_is_for_the_hub_alone(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    standin.add(NAME, FILES, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_granted")
    assert whole(fetch())
    redirected = [each for each in standin.requests if each.path.startswith("/cdn/")]
    assert redirected
    assert not any("Authorization" in each.headers for each in redirected)


@pytest.mark.parametrize(("token", "told"), [(None, "no token is set"), ("hf_other", "was not granted access")])
def test_a_gated_model_names_its_page_and_the_token(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, token: str | None, told: str
) -> None:
    standin.add(NAME, FILES, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match=f"is gated, and .*{told}") as caught:
        fetch()
    assert f"{standin.endpoint}/{NAME}" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    assert standin.sent["model.safetensors"] == 0


@pytest.mark.long
@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("end", [f"/api/models/{NAME}", "/config.json", "/model.safetensors"])
def test_a_passing_trouble_is_waited_for(standin: StandIn, waits: list[float], status: int, end: str) -> None:
    standin.add(NAME, FILES)
    standin.statuses[end] = [(status, {})] * 3
    assert whole(fetch())
    assert waits == [1.0, 2.0, 4.0]


def test_the_hub_says_how_long_to_wait(standin: StandIn, waits: list[float]) -> None:
    standin.add(NAME, FILES)
    standin.statuses["/config.json"] = [(429, {"Retry-After": "7"}), (429, {"Retry-After": "86400"})]
    assert whole(fetch())
    assert waits == [7.0, 60.0]


@pytest.mark.parametrize(("status", "told"), [(429, "asks for patience"), (503, r"answers with an error \(503\)")])
def test_a_lasting_trouble_is_said(standin: StandIn, waits: list[float], status: int, told: str) -> None:
    standin.add(NAME, FILES)
    standin.statuses["/model.safetensors"] = [(status, {})] * 99
    with pytest.raises(ModelError, match=f"the hub {told}") as caught:
        fetch()
    assert "what has arrived is kept" in caught.value.hint
    assert len(waits) == 5


def test_what_is_not_the_hub_is_said(standin: StandIn) -> None:
    """A log-in page of a hotel, say."""
    standin.statuses[f"/api/models/{NAME}"] = [(200, {})]
    with pytest.raises(ModelError, match=f"what answers at {standin.endpoint} is not the hub"):
        fetch()


def test_a_token_that_is_refused_is_said(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.download.has_token", lambda: True)
    refusal = {"X-Error-Message": "Invalid credentials in Authorization header"}
    standin.statuses[f"/api/models/{NAME}"] = [(401, refusal)]
    with pytest.raises(ModelError, match=r"the hub refuses the token \(401\)") as caught:
        fetch()
    assert "renew HF_TOKEN" in caught.value.hint
    monkeypatch.setattr("metier.download.has_token", lambda: False)
    standin.statuses[f"/api/models/{NAME}"] = [(401, refusal)]
    with pytest.raises(ModelError, match=r"the hub refuses whoever has no token \(401\)") as caught:
        fetch()
    assert "set HF_TOKEN" in caught.value.hint


def test_a_file_without_a_checksum_is_refused(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a file's name: nothing but a checksum may."""
    standin.add(NAME, FILES)
    monkeypatch.setattr("tests.standin.blob_id", lambda content: "../../elsewhere")
    with pytest.raises(ModelError, match="lists it without a checksum"):
        fetch()
    assert not standin.sent


def test_progress_is_told(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TOLD_EVERY", 1 << 20)
    weights = bytes(3_500_000)
    standin.add(NAME, {**FILES, "model.safetensors": weights})
    heard: list[Event] = []
    download.fetch(NAME, None, "", heard.append)
    told = [each for each in heard if each.phase == "download"]
    assert [each.done for each in told] == [1, 2, 3, 3]
    assert {each.total for each in told} == {3}


def test_silence_is_said(standin: StandIn, waits: list[float]) -> None:
    standin.add(NAME, FILES)
    standin.close()
    with pytest.raises(ModelError, match="the connection to the hub fails"):
        fetch()
    assert len(waits) == 5


def test_what_the_hub_does_not_know_is_said(standin: StandIn) -> None:
    with pytest.raises(ModelError, match="the hub has no such model") as caught:
        fetch()
    assert "check the name" in caught.value.hint
    standin.add(NAME, FILES)
    with pytest.raises(ModelError, match="has no such revision") as caught:
        fetch("v9")
    assert "/commits/main" in caught.value.hint
    with pytest.raises(ModelError, match="is no name that the hub allows"):
        find("own er/na--me", Path())


@pytest.mark.parametrize(("lacking", "told"), [("config.json", "no config.json"), ("model.safetensors", "safetensors")])
def test_a_repository_that_is_no_base_is_refused_before_anything_is_fetched(
    standin: StandIn, lacking: str, told: str
) -> None:
    standin.add(NAME, {name: content for name, content in FILES.items() if name != lacking})
    with pytest.raises(ModelError, match=told):
        fetch()
    assert not standin.sent


def test_only_what_a_base_needs_is_fetched(standin: StandIn) -> None:
    more = ["modeling.py", "pytorch_model.bin", "consolidated.safetensors", "onnx/config.json", "README.md"]
    standin.add(NAME, {**FILES, **dict.fromkeys(more, b"x" * 5000)})
    assert whole(fetch())
    assert set(standin.sent) == set(FILES)


def test_a_disk_that_is_too_small_is_said_with_the_arithmetic(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    standin.add(NAME, FILES)
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(10**9, 10**9, 60_000))
    with pytest.raises(DoesNotFit, match=r"0\.1 MB to fetch, 0\.0 MB of it there, 0\.1 MB free") as caught:
        fetch()
    assert "HF_HOME" in caught.value.hint
    assert not standin.sent
    blobs = tmp_path / "cache/models--owner--name/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{etag(WEIGHTS)}.part").write_bytes(WEIGHTS[:50_000])
    assert whole(fetch()), "a part that lies there is no longer needed"
    assert standin.sent["model.safetensors"] == 50_000


def test_size_licence_and_room_are_said_before(standin: StandIn) -> None:
    made = standin.add(NAME, FILES, card={"license": "mit"})
    heard: list[Event] = []
    source = find(NAME, Path(), listen=heard.append)
    text = str(heard[0].values["text"])
    assert text.startswith(f"fetching {NAME} at {next(iter(made.commits))[:12]}: 0.1 MB in 3 files, licence mit;")
    assert "free on the disk" in text
    assert source.revision == next(iter(made.commits))
    heard.clear()
    assert find(NAME, Path(), listen=heard.append) == source
    assert heard == [], "what lies here is not fetched"


def test_a_revision_is_pinned_by_its_name(standin: StandIn) -> None:
    made = standin.add(NAME, FILES)
    old = next(iter(made.commits))
    newer = {**FILES, "config.json": b'{"newer": 1}'}
    made.commits[commit_of(newer)] = newer
    assert find(NAME, Path()).revision == commit_of(newer)
    pinned = find(f"{NAME}@{old}", Path())
    assert (pinned.name, pinned.revision) == (NAME, old)
    assert whole(pinned.directory)


def test_the_first_snapshot_counts_until_another_is_asked_for(standin: StandIn) -> None:
    made = standin.add(NAME, FILES)
    first = find(NAME, Path()).revision
    newer = {**FILES, "config.json": b'{"newer": 1}'}
    made.commits[commit_of(newer)] = newer
    asked = len(standin.requests)
    assert find(NAME, Path()).revision == first
    assert len(standin.requests) == asked


def test_a_snapshot_that_lacks_a_part_is_mended(standin: StandIn, tmp_path: Path) -> None:
    parts = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 5000 for n in (1, 2)}
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    standin.add(NAME, {"config.json": b"{}", "model.safetensors.index.json": index, **parts})
    snapshot = find(NAME, Path()).directory
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lies here without|is not on this machine"):
        find(NAME, Path(), offline=True)
    assert find(NAME, Path()).directory == snapshot
    assert (snapshot / "model-00002-of-00002.safetensors").is_file()


def test_offline_opens_no_socket(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    standin.add(NAME, FILES)
    here = find(NAME, Path()).directory

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert find(NAME, Path(), offline=True).directory == here
    with pytest.raises(ModelError, match="is not on this machine, and --offline was given"):
        find("owner/other", Path(), offline=True)


def test_no_network_is_said(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="is not on this machine, and HF_HUB_OFFLINE is set"):
            find(NAME, Path())
    assert not standin.requests
    standin.close()
    with pytest.raises(ModelError, match="is not on this machine, and the hub cannot be reached"):
        find(NAME, Path())
