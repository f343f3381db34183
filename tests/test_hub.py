"""Published checkpoints by name: right bytes or a named error, from a server on the loopback that misbehaves."""

import email.utils
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from conftest import write_tiny
from hub_server import COMMIT, Hub, download_here, fetch_slowly

import bert4x
from bert4x import errors, hub, locks
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.staging import staging_folder
from bert4x.errors import (
    CheckpointNotFoundError,
    ChecksumError,
    CorruptFileError,
    DiskSpaceError,
    DownloadError,
    HubError,
    OfflineError,
    UnknownArchitectureError,
    UnknownFormatError,
    UnknownModelError,
    UnsafeFileError,
)
from bert4x.hub import store, transfer, web
from bert4x.hub.archives import extract
from bert4x.hub.catalogue import Entry, by_any_name, catalogue, find, wanted
from bert4x.hub.names import family_by_name, local
from bert4x.hub.selection import choose
from bert4x.hub.transfer import Remote, fetch
from bert4x.hub.web import UnreachableError, new_session

DATA = random.Random(0).randbytes(700_001)
SHA256 = hashlib.sha256(DATA).hexdigest()
ID = "somebody/tiny-bert"
ZIP = "chinese_L-12_H-768_A-12"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Tiny checkpoints as published: name of the layout -> files."""
    folder = tmp_path_factory.mktemp("published")
    return {
        format: {path.name: path.read_bytes() for path in sorted(write_tiny(folder / format, "bert", format).iterdir())}
        for format in ("hf", "tf1")
    }


@pytest.fixture
def server(tmp_path, monkeypatch, checkpoints):
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "BERT4X_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = Hub()
    monkeypatch.setenv("BERT4X_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", found.url)
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    monkeypatch.setattr(web, "TIMEOUT", (2, 2))
    monkeypatch.setattr(locks, "POLL", 0.02)
    found.repositories[ID] = dict(checkpoints["hf"])
    found.files["/file.bin"] = DATA
    yield found
    found.close()


@pytest.fixture
def get(server, tmp_path):
    """Fetches /file.bin, of which size and sha256 are known, or not."""

    def run(known=True, **changes):
        facts = {"size": len(DATA), "sha256": SHA256} if known else {}
        with new_session() as session:
            remote = Remote(**{"name": "file.bin", "url": server.url + "/file.bin", **facts, **changes})
            return fetch(session, remote, tmp_path / "file.bin")

    return run


def nothing_final(tmp_path):
    return not (tmp_path / "file.bin").exists()


def values(path):
    checkpoint = open_checkpoint(local(path))
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.variables}


# One file.


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [None],
        [("cut", 0)],
        [("cut", 1), ("cut", 200_000), ("cut", 500_123), ("cut", 699_999)],
        [("cut", 300_000), ("ignore range",)],
        [("cut", 300_000), ("wrong range",)],
        [("status", 503), ("status", 429, {"Retry-After": "0"})],
        [("gzip",)],
        [("cut", 300_000), ("gzip",)],
        [("cut", 300_000), ("status", 416), None],
    ],
    ids=str,
)
def test_right_bytes_whatever_happens(server, get, tmp_path, faults, known):
    server.faults["/file.bin"] = list(faults)
    assert get(known) == SHA256
    assert (tmp_path / "file.bin").read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.glob("file.bin*")) == ["file.bin"]


def test_a_length_that_is_too_large(server, get):
    server.faults["/file.bin"] = [("length", 900_000), None]
    assert get(False) == SHA256


def test_only_what_is_missing_is_asked_for(server, get, tmp_path):
    server.faults["/file.bin"] = [("cut", 300_000)]
    get()
    first, second = server.gets("/file.bin")
    assert "Range" not in first
    start = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 300_000 - transfer.BLOCK <= start <= 300_000


@pytest.mark.parametrize(("known", "conditions"), [(True, True), (False, True), (False, False)])
def test_a_file_that_changes_between_two_ranges(server, get, tmp_path, known, conditions):
    server.conditions = conditions
    server.faults["/file.bin"] = [("cut", 300_000), *[("status", 503)] * 9]
    with pytest.raises(UnreachableError, match="503"):
        get(known)
    other = bytes(len(DATA))
    server.files["/file.bin"] = other
    server.faults.clear()
    if known:
        with pytest.raises(ChecksumError, match="sha256"):
            get()
        assert nothing_final(tmp_path)
        assert not list(tmp_path.glob("*.part"))
    else:
        get(False)
        assert (tmp_path / "file.bin").read_bytes() == other


def test_without_a_validator_nothing_is_continued(server, get, tmp_path):
    server.etags["/file.bin"] = None
    server.faults["/file.bin"] = [("cut", 300_000)]
    assert get(False) == SHA256
    assert all("Range" not in headers for headers in server.gets("/file.bin"))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (("data", DATA[:-1] + b"?"), ChecksumError, "sha256"),
        (("data", DATA[:1000]), DownloadError, "offers 1,000 bytes"),
        (("data", b"version https://git-lfs.github.com/spec/v1\n"), DownloadError, "Git LFS"),
        (("length", 5), DownloadError, "offers 5 bytes"),
        (("html",), DownloadError, "web page"),
        (("status", 404), DownloadError, "404"),
        (("status", 401), DownloadError, "HF_TOKEN"),
        (("status", 429, {"Retry-After": "86400"}), DownloadError, "86400 s"),
        (("redirect", "/file.bin"), DownloadError, "circle"),
        (("redirect", "file:///etc/hostname"), DownloadError, "cannot be asked for"),
        (("endless",), DownloadError, "more than 700,001 bytes"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_named_errors(server, get, tmp_path, fault, error, message):
    server.faults["/file.bin"] = [fault] * 12
    with pytest.raises(error, match=message):
        get()
    assert nothing_final(tmp_path)


def test_an_endless_body_of_unknown_size_ends(server, get, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MAX_UNDECLARED", 1 << 20)
    server.faults["/file.bin"] = [("endless",)]
    with pytest.raises(DownloadError, match="more than"):
        get(False)
    assert list(tmp_path.glob("file.bin*")) == []


def test_retry_after_is_honoured(server, get, monkeypatch):
    slept = []
    monkeypatch.setattr(transfer.time, "sleep", slept.append)
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.faults["/file.bin"] = [("status", 429, {"Retry-After": "7"}), ("status", 503, {"Retry-After": date})]
    get()
    assert slept[0] == 7
    assert 95 < slept[1] <= 100


def test_proxies_of_the_environment(server, get, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    assert get(url="http://nowhere.invalid/file.bin") == SHA256


def test_a_full_disk_is_seen_before(server, get, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: type("Usage", (), {"free": transfer.MARGIN}))
    with pytest.raises(DiskSpaceError, match="MB free"):
        get()
    assert list(tmp_path.glob("file.bin*")) == []


def test_a_server_that_falls_silent(server, get, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", (0.2, 0.2))
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.slow = 0.5
    with pytest.raises(UnreachableError, match="2 attempts"):
        get()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are started by fork here")
def test_killed_at_random_moments(server, tmp_path):
    """A process killed leaves what it has written; the next goes on from exactly there."""
    data = random.Random(1).randbytes(6_000_000)
    server.files["/big.bin"], server.slow = data, 0.002
    sha256, path = hashlib.sha256(data).hexdigest(), tmp_path / "big.bin"
    part, chance = tmp_path / "big.bin.part", random.Random(2)
    context = forkserver()
    sizes = []
    for kill in range(25):
        arguments = (server.url + "/big.bin", len(data), sha256, str(path))
        child = context.Process(target=fetch_slowly, args=arguments)
        before, asked = (part.stat().st_size if part.exists() else 0), len(server.gets("/big.bin"))
        child.start()
        while len(server.gets("/big.bin")) == asked and child.is_alive():
            time.sleep(0.002)
        while kill % 5 == 0 and child.is_alive() and (part.stat().st_size if part.exists() else 0) == before:
            time.sleep(0.002)  # on a busy machine too, some get further
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert before <= (part.stat().st_size if part.exists() else len(data))
        sizes.append(before)
        if path.exists():
            break
    server.slow = 0
    fetch_slowly(server.url + "/big.bin", len(data), sha256, str(path))
    assert path.read_bytes() == data
    starts = [int(h.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) for h in server.gets("/big.bin")]
    assert starts[: len(sizes)] == sizes
    assert len(set(sizes)) > 3


def forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hub_server", "bert4x.hub"])
    return context


# A repository.


def test_hugging_face(server, checkpoints):
    model = bert4x.load(ID)
    folder = store.folder_of(ID)
    assert {path.name for path in folder.iterdir()} == {*checkpoints["hf"], store.MANIFEST}
    assert model.tokenizer is not None
    assert values(folder) == values(ID)
    before = len(server.requests)
    assert hub.download(ID) == folder
    assert len(server.requests) == before
    manifest = json.loads((folder / store.MANIFEST).read_text())
    assert (manifest["source"], manifest["revision"]) == (f"{server.url}/{ID}", COMMIT)


def test_a_mirror_that_lists_no_sizes(server, checkpoints):
    server.sizes_listed = False
    folder = hub.download(ID)
    assert (folder / "model.safetensors").read_bytes() == checkpoints["hf"]["model.safetensors"]
    server.repositories["a/b"] = server.repositories[ID]
    server.faults[f"/cdn/{hashlib.sha256(checkpoints['hf']['model.safetensors']).hexdigest()}"] = [
        ("data", bytes(len(checkpoints["hf"]["model.safetensors"])))
    ]
    with pytest.raises(ChecksumError):  # its headers tell the hash
        hub.download("a/b")


def test_one_format_is_fetched(server, checkpoints):
    others = (
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "README.md",
        "onnx/model.onnx",
        ".gitattributes",
    )
    server.repositories[ID] |= dict.fromkeys(others, b"much")
    folder = hub.download(ID)
    assert not {path.name for path in folder.iterdir()} & set(others)
    names = ["config.json", "vocab.txt", "a.ckpt.index", "a.ckpt.data-00000-of-00001", "checkpoint", "tf_model.h5"]
    assert choose(names, "x")[-1] == "a.ckpt.index"
    assert "tf_model.h5" not in choose(names, "x")
    shards = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert set(choose([*shards, "pytorch_model.bin"], "x")) == set(shards)
    with pytest.raises(UnsafeFileError, match="one file"):
        choose(["config.json", "my.model", "My.model", "model.safetensors"], "x")
    with pytest.raises(UnknownFormatError, match=r"rust_model\.ot"):
        choose(["config.json", "rust_model.ot"], "x")
    assert choose(["config.json", "flax_model.msgpack", "model_state.pdparams"], "x")[1:] == ["flax_model.msgpack"]


def test_a_terminal_sees_a_bar(server, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stderr, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stderr)
        hub.download(ID)
        assert (ID in stderr.getvalue()) is shown
        hub.remove(ID)


def test_vocabulary_alone(server):
    tokenizer = bert4x.load_tokenizer(ID)
    assert tokenizer.encode("月光")[0]
    assert not any("safetensors" in path or "cdn" in path for _, path, _ in server.requests)
    assert bert4x.load(ID).tokenizer.vocab_size == tokenizer.vocab_size


def test_modelscope(server, checkpoints):
    name = f"modelscope://{ID}"
    assert values(name) == values(hub.download(ID))
    assert store.read_manifest(store.folder_of(name))["source"] == f"{server.url}/models/{ID}"


def test_names_that_climb_out_of_the_folder(server, tmp_path):
    for name in ("../../evil.json", "/etc/evil", "a\\b", "x/../../y"):
        server.repositories["bad/names"] = {"config.json": b"{}", "model.safetensors": b"x", name: b"evil"}
        with pytest.raises(UnsafeFileError, match="lists a file"):
            hub.download("bad/names")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "listing", [b"[]", b"{}", b"not json", b'{"siblings": [{"rfilename": 3}]}', b'{"siblings": 1}']
)
def test_lists_that_are_none(server, listing):
    server.files[f"/api/models/{ID}/revision/main"] = listing
    with pytest.raises((DownloadError, CorruptFileError)):
        hub.download(ID)


def test_an_interrupted_download_goes_on(server, monkeypatch, checkpoints):
    data = checkpoints["hf"]["model.safetensors"]
    cdn = f"/cdn/{hashlib.sha256(data).hexdigest()}"
    monkeypatch.setattr(transfer, "BLOCK", 1024)

    def interrupt(done, total):
        if done > total - len(data) + 5000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.download(ID, progress=interrupt)
    assert not store.is_whole(store.folder_of(ID))
    monkeypatch.setenv("BERT4X_OFFLINE", "1")
    with pytest.raises(OfflineError, match=rf"model.safetensors  {len(data) / 1e6:.1f} MB  {server.url}/{ID}/resolve"):
        bert4x.load(ID)
    monkeypatch.delenv("BERT4X_OFFLINE")
    config = len(server.gets(f"/{ID}/resolve/{COMMIT}/config.json"))
    hub.download(ID)
    assert len(server.gets(f"/{ID}/resolve/{COMMIT}/config.json")) == config
    assert int(server.gets(cdn)[-1]["Range"].removeprefix("bytes=").removesuffix("-")) >= 5000 - 1024
    assert (store.folder_of(ID) / "model.safetensors").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are started by fork here")
def test_eight_processes_fetch_it_once(server):
    context = forkserver()
    server.slow = 0.02
    results = context.Queue()
    names = ("BERT4X_HOME", "HF_HOME", "HF_ENDPOINT")
    environment = {name: os.environ[name] for name in names} | {"NO_PROXY": "127.0.0.1"}
    children = [context.Process(target=download_here, args=(ID, environment, results)) for _ in range(8)]
    for child in children:
        child.start()
    found = {results.get(timeout=60) for _ in children}
    for child in children:
        child.join()
    assert found == {str(store.folder_of(ID))}
    assert len([path for _, path, _ in server.requests if path.startswith("/cdn/")]) == 1


def test_the_token_goes_to_nobody_else(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.download(ID)
    assert server.gets(f"/api/models/{ID}/revision/main")[0]["Authorization"] == "Bearer hf_secret"
    (cdn,) = [headers for _, path, headers in server.requests if path.startswith("/cdn/")]
    assert "Authorization" not in cdn
    monkeypatch.delenv("HF_ENDPOINT")
    official, mirror = wanted(ID).sources
    assert official.headers and not mirror.headers
    assert not wanted(f"modelscope://{ID}").sources[0].headers


def test_the_next_source_when_one_fails(server, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("bert4x.hub.settings.HUGGING_FACE", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr("bert4x.hub.settings.HF_MIRROR", server.url)
        with pytest.warns(UserWarning, match=f"was taken from {server.url}"):
            hub.download(ID)


def test_revisions(server):
    folder = hub.download(f"{ID}@v1.0")
    assert folder != store.folder_of(ID)
    assert server.gets(f"/api/models/{ID}/revision/v1.0")
    with pytest.raises(UnknownModelError, match="no revision"):
        wanted("a/b@../x")
    assert wanted("hf://a/b@v1", None, "v2").name == "hf://a/b@v2"
    for name, source in (("https://x.org/y.zip", None), (ID, "https://x.org/y.zip")):
        with pytest.raises(UnknownModelError, match="no revisions; leave out 'v9'"):
            wanted(name, source, "v9")


def test_the_revision_of_an_entry_is_that_of_the_source_asked_for(server):
    entry = next(entry for entry in catalogue().values() if entry.hf and entry.modelscope)
    (source,) = wanted(entry.name, "modelscope", "v1").sources
    assert (source.kind, source.revision) == ("modelscope", "v1")
    archive = next(entry for entry in catalogue().values() if entry.url and not (entry.hf or entry.modelscope))
    with pytest.raises(UnknownModelError, match="no revisions"):
        wanted(archive.name, None, "v1")


def test_removing_a_revision_leaves_the_others(server):
    whole = [hub.download(name) for name in (ID, f"{ID}@v1.0")]
    hub.remove(f"{ID}@v1.0")
    assert [folder.exists() for folder in whole] == [True, False]
    with pytest.raises(HubError, match="is not in"):
        hub.remove(f"{ID}@v1.0")
    assert whole[0].exists()


# Archives.


def zipped(files: dict[str, bytes], folder="inner/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}{name}", data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], folder="./inner/", links=(), mode="w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(f"{folder}{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "pack"), [("zip", zipped), ("zip", lambda f: zipped(f, "./in/")), ("tar.gz", tarred)]
)
def test_archives_by_address(server, checkpoints, suffix, pack):
    server.files[f"/x/model.{suffix}"] = pack(checkpoints["tf1"] | {"README.md": b"hello"})
    url = f"{server.url}/x/model.{suffix}"
    server.faults[f"/x/model.{suffix}"] = [("cut", 3000)]
    folder = hub.download(url)
    assert {path.name for path in folder.iterdir()} == {*checkpoints["tf1"], store.MANIFEST}
    assert bert4x.load(url).tokenizer is not None
    assert len(server.gets(f"/x/model.{suffix}")) == 2


def test_an_entry_of_the_catalogue(server, checkpoints, monkeypatch):
    url = f"{server.url}/bert/{ZIP}.zip"
    server.files[f"/bert/{ZIP}.zip"] = zipped(checkpoints["tf1"])
    entry = find(ZIP)
    monkeypatch.setitem(entry.__dict__, "url", url)
    assert "bert/embeddings/word_embeddings" in open_checkpoint(local(ZIP)).tensors
    assert store.read_manifest(store.folder_of(ZIP))["name"] == ZIP


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (zipped({"../evil.txt": b"x"}), UnsafeFileError),
        (zipped({"bert_model.ckpt.index": bytes(50_000_000)}), UnsafeFileError),
        (zipped({"readme": b"x"}), UnknownFormatError),
        (zipped({"a/model.safetensors": b"x", "b/model.safetensors": b"x"}), UnknownFormatError),
        (zipped({"model.safetensors": DATA})[:400_000], CorruptFileError),
        (b"no archive at all", CorruptFileError),
        (tarred({"../../evil.txt": b"x"}), UnsafeFileError),
        (tarred({"evil.txt": b"x"}, folder="/"), UnsafeFileError),
        (tarred({}, links=[("inner/model.safetensors", "/etc/hostname")]), UnsafeFileError),
        (tarred({}, links=[("model.safetensors", "../../x")]), UnsafeFileError),
        (tarred({"model.safetensors": bytes(50_000_000)}), UnsafeFileError),
        (tarred({"model.safetensors": DATA})[:400_000], CorruptFileError),
        (tarred({"model.safetensors": DATA}, mode="w")[:400_000], CorruptFileError),
    ],
    ids=range(13),
)
def test_archives_that_are_no_good(tmp_path, data, error):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(error):
        extract(tmp_path / "x.zip", folder)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".index")]
    assert not list(tmp_path.rglob("evil*"))


# What lies here.


def test_a_local_path_comes_first(server, tiny, monkeypatch, tmp_path):
    source = tiny("somebody/tiny-bert")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint(ID).folder == Path(ID)
    assert bert4x.load_tokenizer(ID) is not None
    assert server.requests == []
    assert source.is_dir()


def test_huggingface_hubs_cache_is_read(server, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="its cache is read here without it")
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        assert store.in_hugging_face_cache(ID) is None
        huggingface_hub.hf_hub_download(
            ID, name, endpoint=server.url, cache_dir=tmp_path / "huggingface" / "hub", token=False
        )
    before = len(server.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = hub.download(ID)
    assert folder.is_relative_to(tmp_path / "huggingface")
    assert bert4x.load(ID).tokenizer is not None
    assert len(server.requests) == before
    (model,) = hub.cached()
    assert (model.name, model.ours) == (ID, False)
    assert hub.check(model) == (1, [])
    with pytest.raises(HubError, match="hf cache"):
        hub.remove(ID)


def test_a_cache_of_weights_that_are_not_read_does_not_block_a_model(server, tmp_path):
    snapshot = tmp_path / "huggingface/hub" / f"models--{ID.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(COMMIT)
    for name in ("config.json", "vocab.txt", "model.onnx"):
        (snapshot / name).write_bytes(server.repositories[ID].get(name, b""))
    assert store.in_hugging_face_cache(ID) is None
    assert store.in_hugging_face_cache(ID, weights=False) is not None
    assert hub.download(ID) == store.folder_of(ID)


def test_offline_says_what_to_put_where_from_a_mirror(server, monkeypatch):
    monkeypatch.setenv("BERT4X_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    with pytest.raises(OfflineError, match=r"https://hf-mirror\.com/a/b/resolve/main/config\.json"):
        hub.download("a/b")


def test_offline_says_what_to_put_where(server, checkpoints, monkeypatch):
    monkeypatch.setenv("BERT4X_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        bert4x.load("hfl/chinese-roberta-wwm-ext")
    folder = store.folder_of("hfl/chinese-roberta-wwm-ext")
    for part in (str(folder), f"{server.url}/hfl/chinese-roberta-wwm-ext/resolve/main/config.json", "about 408 MB"):
        assert part in str(caught.value)
    assert server.requests == []
    folder.mkdir(parents=True)
    for name, data in checkpoints["hf"].items():
        (folder / name).write_bytes(data)
    assert bert4x.load("chinese-roberta-wwm-ext").tokenizer is not None

    (folder / "pytorch_model.bin.part").write_bytes(b"of a download that failed before")
    assert hub.download("chinese-roberta-wwm-ext") == folder

    with pytest.raises(OfflineError, match=rf"bert_models/2018_11_03/{ZIP}\.zip"):
        bert4x.load(ZIP)
    store.folder_of(ZIP).mkdir(parents=True)
    (store.folder_of(ZIP) / "by_browser.zip").write_bytes(zipped(checkpoints["tf1"]))
    assert bert4x.load(ZIP).tokenizer is not None


def test_no_network(server, monkeypatch):
    server.close()
    with pytest.raises(OfflineError, match="cannot be reached"):
        hub.download(ID)


def test_names_that_mean_nothing(server):
    with pytest.raises(UnknownModelError, match="chinese_L-12_H-768_A-12"):
        bert4x.load("chinese_L-12_H-768")
    with pytest.raises(CheckpointNotFoundError, match=r"hfl/chinese-macbert-base"):
        bert4x.load("hfl/chinese-macbert-bas")
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        bert4x.load("./models/bert")
    with pytest.raises(HubError, match="modelscope"):
        hub.download(ID, source="modelscop")
    with pytest.raises(OfflineError, match="browser"):
        hub.download("RoBERTa-zh-L12")


def test_a_wrong_name_leaves_no_trace(server, tmp_path):
    with pytest.raises(UnknownModelError):
        hub.download("good/modle", to=tmp_path / "to")
    assert not (tmp_path / "to").exists()
    assert hub.download(ID, to=tmp_path / "to") == tmp_path / "to"
    (tmp_path / "file").touch()
    with pytest.raises(HubError, match="is a file; expected a folder"):
        hub.download(ID, to=tmp_path / "file")


def test_what_is_no_list_is_said_with_its_address(server):
    server.files["/api/models/a/b/revision/main"] = b"<html>login</html>"
    with pytest.raises(DownloadError, match=f"{server.url}/api/models/a/b.*answers no JSON"):
        hub.download("a/b")


def test_a_random_head_is_warned_of(server, checkpoints):
    name = "hfl/chinese-roberta-wwm-ext-large"
    server.repositories[name] = checkpoints["hf"]
    bert4x.load(name)
    with pytest.warns(UserWarning, match="random head"):
        bert4x.load(name, with_mlm=True)


def test_the_catalogue():
    entries = catalogue()
    assert len(entries) > 150
    for entry in entries.values():
        assert entry.sources() or entry.where, entry.name
        assert entry.checked in ("read", "loaded")
        assert entry.mlm_head in (None, "random", "absent")
        assert find(entry.name) is entry
        assert entry.url is None or entry.url.startswith("https://")
        assert isinstance(entry.vocabulary, int | None)
    assert {"bert", "albert", "gpt2", "nezha", "roformer", "t5"} <= {entry.family for entry in entries.values()}


def test_the_catalogue_says_which_family_has_names_that_two_have():
    assert family_by_name("chinese_roformer_L-12_H-768_A-12") == "roformer"
    assert [family_by_name(name) for name in ("./roformer", "nobody/nothing")] == [
        None,
        None,
    ]


def test_commands(server, command, tmp_path):
    status, out, err = command("download", ID)
    assert (status, out.strip()) == (0, str(store.folder_of(ID)))
    assert server.url in err
    other = tmp_path / "other"
    assert command("download", ID, "--to", other, "--revision", "main")[0] == 0
    assert (other / "model.safetensors").is_file()
    assert command("download", "hfl/rbt3", "--to", other)[0] == 2  # holds another
    assert command("inspect", ID)[0] == 0
    assert command("convert", ID, tmp_path / "converted", "--to", "tf1")[0] == 0
    assert values(tmp_path / "converted") == values(ID)
    assert command("cache", "verify")[:2] == (0, f"{ID}: 3 files are what was fetched\n")
    listed = json.loads(command("cache", "list", "--json")[1])
    assert [(model["name"], model["whole"]) for model in listed] == [(ID, True)]
    assert ID in command("cache", "list")[1]
    (store.folder_of(ID) / "vocab.txt").write_text("other")
    status, out, _ = command("cache", "verify", ID)
    assert status == 1 and "vocab.txt" in out
    assert command("cache", "remove", ID)[0] == 0
    assert "jieba sentencepiece" in command("models", "cpm")[1]
    assert hub.cached() == []
    assert command("cache", "remove", ID)[0] == 2
    status, out, _ = command("models", "--built", "--family", "ernie")
    assert not status and "universal-extraction" in next(line for line in out.splitlines() if line.startswith("ernie "))
    status, out, _ = command("models", "macbert")
    assert status == 0 and "hfl/chinese-macbert-large" in out and "324M" in out
    assert {row["family"] for row in json.loads(command("models", "--family", "albert", "--json")[1])} == {"albert"}
    assert command("models", "no such thing")[0] == 1


@pytest.mark.parametrize("width", [20, 80, 120, 160])
def test_names_of_the_catalogue_are_never_shortened(command, monkeypatch, width):
    """Whatever the width of the terminal; what does not fit beside them is left out as whole columns."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = command("models")[1].splitlines()
    names = [entry.name for entry in hub.search()]
    assert [line.split()[0] for line in out[1 : len(names) + 1]] == names
    longest = max(map(len, names))
    assert all(len(line) <= max(width, longest) for line in out[: len(names) + 1])
    assert ("licence" in out[0]) == (width == 160)
    assert "its README" not in "".join(out)  # a note


def test_a_search_word_shows_all_that_is_known(command):
    out = command("models", "bert-base-chinese")[1]
    entry = next(entry for entry in hub.search("bert-base-chinese") if entry.hf == "google-bert/bert-base-chinese")
    assert entry.name in out.splitlines()
    assert all(f"    {line}" in out.splitlines() for line in (f"hf: {entry.hf}", f"modelscope: {entry.modelscope}"))
    assert f"    {entry.notes}" in out.splitlines()


def test_a_family_that_is_only_planned(server, command, monkeypatch):
    entry = Entry("someone/model", "future", "hf", hf="someone/model")
    for known in (catalogue(), by_any_name()):
        monkeypatch.setitem(known, entry.name, entry)
    with pytest.raises(UnknownArchitectureError, match=r"'future'.*does not load.*Planned: .*future"):
        bert4x.load(entry.name)
    assert family_by_name(entry.name) is None
    assert "future (planned)" in command("models", entry.name)[1]


def test_the_environment_is_not_touched(server):
    before = dict(os.environ)
    hub.download(ID)
    assert dict(os.environ) == before
    assert "huggingface_hub" not in vars(sys.modules["bert4x.hub"])


# What a lying server, an odd name or a hostile folder must not achieve.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("aa/b--c", "aa--b/c"),
        ("o/m@x/y", "o/m@x--y"),
        ("A" * 90 + "/" + "n" * 96, "B" + "A" * 89 + "/" + "n" * 96),
        ("hf://o/m", "hf/o--m"),
        ("o/m-", "o/m"),
        ("http://a/x.zip", "http://b/x.zip"),
    ],
)
def test_two_names_never_share_a_folder(one, other):
    assert store.folder_of(one) != store.folder_of(other)


def test_folders_of_before_are_found(server):
    for name in ("aa/b--c", ID, f"{ID}@main", f"hf://{ID}", "n" * 90 + "/" + "m" * 90):
        plain = store.settings.home() / "models" / store.plain_name(name)
        plain.mkdir(parents=True)
        store.write_manifest(plain, {"name": name, "complete": True})
        assert store.folder_of(name) == plain
    assert store.folder_of("aa--b/c") != store.folder_of("aa/b--c")


def test_a_folder_of_another_name_is_not_taken(server, checkpoints):
    """As on a disk that takes capital and small letters for one name."""
    server.repositories["O/m"] = dict(checkpoints["hf"])
    server.repositories["o/m"] = checkpoints["hf"] | {"vocab.txt": b"[PAD]\n"}
    first = hub.download("O/m")
    first.rename(first.with_name("o--m"))
    second = hub.download("o/m")
    assert second != first.with_name("o--m") and (second / "vocab.txt").read_bytes() == b"[PAD]\n"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"files": [1]}', b'{"files": {"a": 1}}', b'{"name": 5}', b"\xff"]
)
def test_a_damaged_manifest_is_as_none(server, content):
    folder = hub.download(ID)
    (folder / store.MANIFEST).write_bytes(content)
    assert store.read_manifest(folder) == {}
    assert hub.download(ID) == folder
    assert [model.whole for model in hub.cached()] == [True]
    assert hub.check(hub.cached()[0])[1] == []


def test_a_password_in_an_address_is_used_and_never_told(server, checkpoints, monkeypatch):
    address = server.url.replace("//", "//joe:SE%43RET@")
    server.files["/c/model.safetensors"] = checkpoints["hf"]["model.safetensors"]
    folder = hub.download(f"{address}/c/model.safetensors")
    assert "SECRET" not in folder.name and folder == hub.download(f"{server.url}/c/model.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", address)
    other = hub.download(ID, to=folder.parent / "elsewhere")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", address)
    third = hub.download(f"modelscope://{ID}")
    for path in (folder, other, third):
        text = (path / store.MANIFEST).read_text()
        assert "SECRET" not in text and "SE%43RET" not in text and "joe" not in text
    sent = {headers.get("Authorization") for _, where, headers in server.requests if not where.startswith("/cdn")}
    assert sent == {"Basic am9lOlNFQ1JFVA=="}
    assert all("Authorization" not in headers for _, where, headers in server.requests if where.startswith("/cdn"))
    names = (f"{address}/none.zip", f"{address.replace('http', 'ftp')}/x", "http://joe:SECRET/x@host/a.zip")
    for name, options in itertools.product(names, ({}, {"source": "NAME"}, {"revision": "main"})):
        given = {"source": name} if "source" in options else options
        with pytest.raises(HubError) as error:
            hub.download(ID if "source" in options else name, to=folder.parent / "new", **given)
        assert "SECRET" not in str(error.value) and "SE%43RET" not in str(error.value)


def test_netrc_does_not_replace_the_token(server, checkpoints, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login joe password s\nmachine localhost login j password t\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.faults[f"/{ID}/resolve/{COMMIT}/config.json"] = [("redirect", f"{server.url}/moved.json")]
    server.files["/moved.json"] = checkpoints["hf"]["config.json"]
    hub.download(ID)
    at_home = {headers.get("Authorization") for _, where, headers in server.requests if not where.startswith("/cdn")}
    assert at_home == {"Bearer hf_secret"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.part", store.MANIFEST])
def test_folders_in_the_way(server, name):
    (store.folder_of(ID) / name).mkdir(parents=True)
    with pytest.raises(HubError, match="cannot be written"):
        hub.download(ID)


@pytest.mark.parametrize("token", ["hf_secret\nx", "hf_secret 中"])
def test_a_token_that_is_none_is_not_shown(server, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match="is HF_TOKEN the token alone") as caught:
        hub.download(ID)
    assert "secret" not in str(caught.value)


def test_links_are_not_written_through(server, checkpoints, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = store.folder_of(ID)
    folder.mkdir(parents=True)
    for name in ("config.json.part", "config.json.part.etag", "vocab.txt.part", "vocab.txt"):
        (folder / name).symlink_to(victim)
    hub.download(ID)
    assert victim.read_text() == "precious"
    assert {name: (folder / name).read_bytes() for name in checkpoints["hf"]} == checkpoints["hf"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json.part").symlink_to(victim)
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(checkpoints["hf"]))
    extract(archive, tmp_path / "out")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["\ud800model.safetensors", "x" * 300 + ".safetensors", "a\nb.safetensors", "é" * 200])
def test_names_that_no_disk_holds(server, monkeypatch, name):
    plain = server.listing
    monkeypatch.setattr(
        server, "listing", lambda files: {**plain(files), "siblings": [{"rfilename": name}, *plain(files)["siblings"]]}
    )
    with pytest.raises((UnsafeFileError, DownloadError)):
        hub.download(ID)


@pytest.mark.parametrize("value", [None, True, [], {}, 1e300, -1, "x", "\u00b2", "9" * 5000, [[[]]]])
def test_odd_values_in_a_listing(server, monkeypatch, value):
    plain = server.listing

    def odd(files):
        entries = plain(files)["siblings"]
        spoiled = [entry | {"size": value, "blobId": value, "lfs": value} for entry in entries]
        return {"sha": value, "siblings": spoiled}

    monkeypatch.setattr(server, "listing", odd)
    try:
        assert hub.download(ID).is_dir()
    except errors.Bert4xError as error:
        assert server.url in str(error) or ID in str(error)


def test_odd_headers(server, get):
    odd = [("status", 503, {"Retry-After": value}) for value in ("\u00b2", "9" * 5000)]
    server.faults["/file.bin"] = [*odd, None]
    get()


KILLED = """
import os, signal, sys, time
from pathlib import Path
from bert4x.checkpoints.staging import staging_folder
with staging_folder(Path(sys.argv[1]), "model") as folder:
    (folder / "half").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_folders_of_killed_processes_are_removed(tmp_path):
    """And those of living ones are not."""
    processes = [subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE) for _ in range(2)]
    dead, living = (Path(process.stdout.readline().decode().strip()) for process in processes)
    processes[0].kill()
    processes[0].communicate()
    assert (dead / "half").is_file() and (living / "half").is_file()
    with staging_folder(tmp_path, "other") as folder:
        assert folder.is_dir() and not dead.exists() and (living / "half").is_file()
    processes[1].kill()
    processes[1].communicate()
    with staging_folder(tmp_path, "model"):
        pass
    assert list(tmp_path.iterdir()) == []
