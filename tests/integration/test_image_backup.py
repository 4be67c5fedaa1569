"""Saving, verifying and restoring images by hand: what is not as it was saved is refused, and nothing dies halfway."""

import gzip
import hashlib
import io
import json
import random
import secrets
import shutil
import signal
import subprocess
import tarfile
import time

import pytest
from bed.images import backups

KILLS = 50


class Saved:
    """Small images of a test's own in the engine, and a directory of backups."""

    def __init__(self, make_worker, database, ground, directory):
        self.worker, self.docker, self.directory = make_worker(database, ground), ground.docker, directory
        self.worker.env["QFC_WORKER_IMAGE_BACKUP_DIR"] = str(directory)
        self.tag = f"qfc-bed-image-{secrets.token_hex(4)}"
        self.names = []

    def image(self, size=20000, layers=1):
        """Makes another image of the same name; returns name and id."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("noise")
            entry.size = size
            tar.addfile(entry, io.BytesIO(random.randbytes(size)))
        self.forget()
        self.docker.import_image(buffer.getvalue(), self.tag, "latest", ["ENV A=B"])
        return f"{self.tag}:latest"

    def forget(self):
        if self.docker.image(f"{self.tag}:latest"):
            self.docker.delete(f"/images/{self.tag}:latest", force=1)

    def command(self, verb, *args):
        return self.worker.run("image", verb, *args)

    def only(self):
        (manifest,) = backups(self.directory)
        return manifest


@pytest.fixture
def saving(make_worker, database, ground, tmp_path):
    made = Saved(make_worker, database, ground, tmp_path)
    yield made
    made.forget()


def test_saved_lost_and_restored(saving):
    name = saving.image()
    image = saving.docker.image(name)["Id"]
    assert "saved sha256:" in saving.command("save", name).stdout
    manifest = saving.only()
    assert (manifest["image"], manifest["id"]) == (name, image)
    assert "there is a whole backup" in saving.command("save", name).stdout
    assert ": whole\n" in saving.command("verify", name).stdout
    assert "the engine has it" in saving.command("restore", name).stdout
    saving.forget()
    assert not saving.docker.image(image)
    status = saving.command("status", name)
    assert "the engine has none" in status.stdout and image[:19] in status.stdout
    restored = saving.command("restore", name)
    assert restored.returncode == 0 and "restored sha256:" in restored.stdout, restored
    assert saving.docker.image(name)["Id"] == image


def test_the_last_two_are_kept_and_an_older_one_can_be_had(saving):
    ids = []
    for _ in range(3):
        name = saving.image()
        ids.append(saving.docker.image(name)["Id"])
        assert saving.command("save", name).returncode == 0
    assert sorted(manifest["id"] for manifest in backups(saving.directory)) == sorted(ids[1:])
    assert len(list(saving.directory.glob("qfc-image-*.tar.gz"))) == 2
    assert saving.command("restore", name, "--id", ids[1][7:23]).returncode == 0
    assert saving.docker.image(name)["Id"] == ids[1]


def cut(path):
    path.write_bytes(path.read_bytes()[:-777])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("harm, word", [(cut, "it was cut off"), (flip, "it was changed or replaced")])
def test_a_damaged_archive_is_refused(saving, harm, word):
    name = saving.image()
    assert saving.command("save", name).returncode == 0
    harm(saving.directory / saving.only()["archive"])
    saving.forget()
    for verb in ("verify", "restore"):
        refused = saving.command(verb, name)
        assert refused.returncode == 1 and word in refused.stderr, refused
    assert not saving.docker.image(name)
    name = saving.image()
    assert "saved sha256:" in saving.command("save", name).stdout, "a damaged one is no backup"


def test_swapped_archives_are_refused(saving):
    """Each under the other's name, and also with manifests that were made to fit: the image's id tells."""
    for _ in range(2):
        name = saving.image()
        assert saving.command("save", name).returncode == 0
    saving.forget()
    one, other = backups(saving.directory)
    paths = [saving.directory / manifest["archive"] for manifest in (one, other)]
    aside = saving.directory / "aside"
    shutil.move(paths[0], aside)
    shutil.move(paths[1], paths[0])
    shutil.move(aside, paths[1])
    refused = saving.command("restore", name)
    assert refused.returncode == 1 and not saving.docker.image(name), refused
    for mine, its in ((one, other), (other, one)):
        (manifest,) = saving.directory.glob(f"*{mine['id'][7:19]}.json")
        fitted = {**mine, "archive_sha256": its["archive_sha256"], "archive_bytes": its["archive_bytes"]}
        manifest.write_text(json.dumps(fitted))
    refused = saving.command("verify", name)
    assert refused.returncode == 1 and refused.stderr.count("it holds another image") == 2, refused


def repacked(path, change):
    """The archive with another content, and a manifest that fits it."""
    source = tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes())))
    entries = [(entry, source.extractfile(entry).read() if entry.isreg() else b"") for entry in source]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in change(entries):
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def rot(entries):
    """One byte of a layer."""
    for entry, content in entries:
        if len(content) > 10000:
            content = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
        yield entry, content


def without_layer(entries):
    return [(entry, content) for entry, content in entries if len(content) < 10000]


def twice(entries):
    return entries + entries[-1:]


def with_device(entries):
    entry = tarfile.TarInfo("dev")
    entry.type = tarfile.CHRTYPE
    return entries + [(entry, b"")]


def crowd(entries):
    return entries + [(tarfile.TarInfo(f"file{i}"), b"") for i in range(5000)]


def link_out(entries):
    """The layer's name leads out of the archive."""
    for entry, content in entries:
        if len(content) > 10000:
            entry.type, entry.linkname, content = tarfile.SYMTYPE, "../../../../etc/passwd", b""
        yield entry, content


@pytest.mark.parametrize(
    "change, word",
    [
        (rot, "layer 1 of 1 "),
        (without_layer, "layer 1 of 1 is not in it"),
        (twice, "two files of the name"),
        (with_device, "neither a file nor a link"),
        (crowd, "more than 4096 files"),
        (link_out, "layer 1 of 1 is not in it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_in_an_archive_is_looked_at(saving, change, word):
    """With a manifest that fits, so that only its content can tell."""
    name = saving.image()
    assert saving.command("save", name).returncode == 0
    manifest = saving.only()
    path = saving.directory / manifest["archive"]
    fit(saving, manifest, path, gzip.compress(repacked(path, change), 1))
    refused = saving.command("verify", name)
    assert refused.returncode == 1 and word in refused.stderr, refused


def fit(saving, manifest, path, content):
    path.write_bytes(content)
    manifest = {**manifest, "archive_bytes": len(content), "archive_sha256": hashlib.sha256(content).hexdigest()}
    (saving.directory / f"{path.name.rpartition('-')[0]}.json").write_text(json.dumps(manifest))


def blob(content, entries):
    """Adds it to the entries as a blob; returns its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    entries.append((f"blobs/sha256/{digest}", content))
    return {"digest": f"sha256:{digest}", "size": len(content)}


def newer(entries, wrapped):
    """The same image as an engine from 25 on exports it: an OCI layout beside manifest.json; `wrapped` as one with
    containerd's image store does: layers compressed, and the id that of an index. Returns the tar and the id."""
    (layer,) = (content for _, content in entries if len(content) > 10000)
    (config,) = (content for entry, content in entries if b'"diff_ids"' in content and entry.name.endswith(".json"))
    out = []
    layer = blob(gzip.compress(layer) if wrapped else layer, out)
    config = blob(config, out)
    document = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), out)
    others = {"digest": f"sha256:{'0' * 64}", "size": 1}  # another platform's, which is not exported
    index = blob(json.dumps({"schemaVersion": 2, "manifests": [others, document]}).encode(), out)
    top = index if wrapped else document
    name = "blobs/sha256/{}".format
    manifest = [{"Config": name(config["digest"][7:]), "RepoTags": None, "Layers": [name(layer["digest"][7:])]}]
    out += [("index.json", json.dumps({"manifests": [top]}).encode()), ("manifest.json", json.dumps(manifest).encode())]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in out:
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue(), (top if wrapped else config)["digest"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["engine 25", "containerd"])
def test_archives_of_newer_engines(saving, wrapped):
    """They are taken, and their blobs are looked at like any layer."""
    name = saving.image()
    assert saving.command("save", name).returncode == 0
    manifest = saving.only()
    path = saving.directory / manifest["archive"]
    source = tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes())))
    tar, image = newer([(e, source.extractfile(e).read() if e.isreg() else b"") for e in source], wrapped)
    fit(saving, {**manifest, "id": image}, path, gzip.compress(tar, 1))
    assert saving.command("verify", name).returncode == 0
    at = tar.index(b"\0" * 64 + b"\x1f\x8b") + 2000 if wrapped else 512 + 9000
    fit(saving, {**manifest, "id": image}, path, gzip.compress(tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :], 1))
    refused = saving.command("verify", name)
    assert refused.returncode == 1, refused
    assert "is damaged" in refused.stderr or "its compression is broken" in refused.stderr, refused


def test_a_tar_that_ends_early(saving):
    """Compressed anew, on a boundary: nothing but the missing end tells."""
    name = saving.image()
    assert saving.command("save", name).returncode == 0
    manifest = saving.only()
    path = saving.directory / manifest["archive"]
    tar = gzip.decompress(path.read_bytes()).rstrip(b"\0")
    fit(saving, manifest, path, gzip.compress(tar + b"\0" * (-len(tar) % 512), 1))
    refused = saving.command("verify", name)
    assert refused.returncode == 1 and "cut off" in refused.stderr, refused


def test_no_room(saving):
    """A file system that is too small: refused before anything is written."""
    small = saving.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        name = saving.image(size=2_000_000)
        refused = saving.command("save", name, "--dir", str(small))
        assert refused.returncode == 1 and f"no room for image {name}" in refused.stderr, refused
        assert [path.name for path in small.iterdir()] == [".qfc-image-lock"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_disk_fails_while_it_is_written(saving, monkeypatch):
    """What was there stays, nothing is left, and no memory either."""
    before = saving.image(size=1_000_000)
    assert saving.command("save", before).returncode == 0
    manifest, files = saving.only(), sorted(saving.directory.iterdir())
    name, plain = saving.image(size=1_000_000), saving.worker.command
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$@"', "sh"]
    monkeypatch.setattr(saving.worker, "command", lambda *args: limited + plain(*args))
    failed = saving.command("save", name)
    assert failed.returncode == 1 and "File too large" in failed.stderr, failed
    assert saving.only() == manifest and sorted(saving.directory.iterdir()) == files


def test_killed_at_any_moment_of_a_save(saving):
    """kill -9, fifty times: the backup before is always whole, and what was left is gone with the next save."""
    name = saving.image(size=1_000_000)
    began = time.monotonic()
    assert saving.command("save", name).returncode == 0
    span = time.monotonic() - began
    ids, done = {saving.only()["id"]}, 0
    for _ in range(KILLS):
        name = saving.image(size=1_000_000)
        process = saving.worker.start("image", "save", name)
        time.sleep(random.uniform(0, 1.1 * span))
        process.send(signal.SIGKILL)
        process.wait()
        left = {manifest["id"] for manifest in backups(saving.directory)}
        assert left and len(left - ids) <= 1, "the previous backup has gone"
        if left - ids:
            done += 1
        assert ids & left, "the previous backup is not there any more"
        ids = left
    print(f"{KILLS} kills within {1.1 * span:.2f} s of a save's beginning; {done} saves were done before")
    name = saving.image()
    assert saving.command("save", name).returncode == 0
    assert saving.command("verify").returncode == 0
    archives = {manifest["archive"] for manifest in backups(saving.directory)}
    assert {path.name for path in saving.directory.iterdir() if path.suffix == ".gz"} == archives
    assert not list(saving.directory.glob(".qfc-image-archive*"))
