"""What tests of the image guard do to an engine of their own, and what lies in a directory of saved images."""

import hashlib
import io
import json
import tarfile

from .image import CHANGES, REPOSITORY, root_file_system


def forget(scene):
    """Leaves the image only the run's own name: so its loss is a loss."""
    for name in scene.docker.image(scene.ground.image)["RepoTags"]:
        if name != scene.ground.image:
            scene.docker.remove_image(name)


def lose(scene):
    """Takes the image away by force, whatever its names."""
    image = scene.docker.image(scene.ground.image)
    for name in image["RepoTags"] if image else []:
        scene.docker.delete(f"/images/{name}", force=1, missing_ok=True)


def changed_image(scene, number):
    """Gives the run's name to another image that does the same; returns its id."""
    buffer = io.BytesIO(root_file_system())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        entry = tarfile.TarInfo("etc/number")
        content = str(number).encode()
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    scene.docker.import_image(buffer.getvalue(), REPOSITORY, scene.ground.image.partition(":")[2], CHANGES)
    return scene.docker.image(scene.ground.image)["Id"]


def images_prune(docker, everything=False):
    """docker image prune, or prune -a."""
    docker.post("/images/prune", filters={"dangling": ["false" if everything else "true"]})


def system_prune(docker, everything=False):
    """docker system prune, or prune -a: the calls of the docker client (cli/command/system/prune.go)."""
    docker.post("/containers/prune")
    docker.post("/networks/prune")
    images_prune(docker, everything)


def backups(directory):
    """The manifests; each must name a whole archive, by a measure that is not the program's own."""
    found = []
    for path in directory.glob("qfc-image-*.json"):
        manifest = json.loads(path.read_text())
        content = (directory / manifest["archive"]).read_bytes()
        assert len(content) == manifest["archive_bytes"], manifest
        assert hashlib.sha256(content).hexdigest() == manifest["archive_sha256"], manifest
        found.append(manifest)
    return found
