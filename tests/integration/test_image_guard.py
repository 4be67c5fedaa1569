"""The image is there when it is needed: saved once, held, brought back, and what removed it is said."""

import time

import pytest
from bed.images import backups, changed_image, forget, images_prune, lose, system_prune

JOBS = 20


@pytest.fixture
def guarded(own_scene, tmp_path):
    """A scene whose worker saves into a directory of its own, on an engine that only this test has."""
    own_scene.backup_directory = tmp_path
    own_scene.worker.env["QFC_WORKER_IMAGE_BACKUP_DIR"] = str(tmp_path)
    forget(own_scene)
    return own_scene


def saved(scene, times=1):
    scene.wait_for_word("is saved: ", times)


def all_finish(scene, jobs):
    for job in jobs:
        scene.finishes(job, limit=180)
        assert "qfc_worker" not in scene.row(job)["feedback"]
    assert scene.database.value("SELECT count(*) FROM core_job WHERE status = 'failed'") == 0


def test_removed_while_jobs_wait_and_run(guarded):
    """Two run and twenty wait: a name that is taken away by force is given again at once, and nobody's job fails."""
    guarded.start("--concurrency", "2")
    saved(guarded)
    gates = [guarded.job("gate.qgs") for _ in range(2)]
    running = [guarded.running(job) for job in gates]
    jobs = [guarded.job() for _ in range(JOBS)]
    began = time.monotonic()
    lose(guarded)
    guarded.wait_for_word(f"image {guarded.ground.image} is back")
    print(f"from removal to the name's return: {time.monotonic() - began:.2f} s")
    for container in running:
        guarded.let_go(container)
    all_finish(guarded, gates + jobs)
    guarded.stop()


def test_deleted_while_jobs_wait(guarded):
    """It is gone for good, all of it; twenty jobs come in the same moment, and are done."""
    guarded.start("--concurrency", "2")
    saved(guarded)
    image = guarded.docker.image(guarded.ground.image)["Id"]
    began = time.monotonic()
    lose(guarded)
    jobs = [guarded.job() for _ in range(JOBS)]
    guarded.wait_for_word("restored sha256:")
    print(f"from removal to restored: {time.monotonic() - began:.2f} s")
    all_finish(guarded, jobs)
    assert guarded.docker.image(guarded.ground.image)["Id"] == image
    guarded.wait_for_word("was deleted at ")
    assert guarded.said("by docker rmi, or a call like it: there was no prune", "warning") == 1
    guarded.stop()


def test_lost_before_the_worker_started(guarded):
    """Nothing runs while it is gone, and a worker that starts then brings it back first."""
    assert guarded.worker.run("image", "save", guarded.ground.image).returncode == 0
    lose(guarded)
    job = guarded.job()
    guarded.start()
    guarded.finishes(job)
    assert guarded.said("restored sha256:") == 1 and guarded.starts(job) == 1
    guarded.stop()


@pytest.mark.parametrize(
    "prune, said", [(images_prune, "docker image prune"), (system_prune, "docker system prune")], ids=["image", "system"]
)
def test_pruned_and_told(guarded, prune, said):
    """No container and no holder keeps it: it is pruned, restored, and what has done it is said."""
    guarded.start()
    saved(guarded)
    prune(guarded.docker, everything=True)
    guarded.wait_for_word("restored sha256:")
    guarded.wait_for_word(f"by {said}, or a call like it")
    guarded.finishes(guarded.job())
    guarded.stop()


def holders(scene):
    return scene.docker.containers(label=["qfc_image_hold"])


def test_held_against_prunes(own_scene):
    """The holder alone, without any backup: every prune spares the image. Switched off, it goes, and the image stays."""
    forget(own_scene)
    own_scene.start(QFC_WORKER_IMAGE_HOLD="on")
    own_scene.wait_for_word("is held by container")
    own_scene.worker.wait_for(lambda: second_names(own_scene), "the second name")
    image = own_scene.docker.image(own_scene.ground.image)["Id"]
    for _ in range(2):
        system_prune(own_scene.docker)
        images_prune(own_scene.docker, everything=True)
        assert own_scene.docker.image(own_scene.ground.image)["Id"] == image
    own_scene.finishes(own_scene.job())
    (holder,) = holders(own_scene)
    is_confined(own_scene.docker.inspect(holder["Id"]))
    own_scene.docker.delete(f"/images/{own_scene.ground.image}", force=1)
    own_scene.wait_for_word(f"image {own_scene.ground.image} is back")
    own_scene.finishes(own_scene.job())
    own_scene.stop()
    own_scene.start(QFC_WORKER_IMAGE_HOLD="off")
    own_scene.worker.wait_for(lambda: not holders(own_scene) and not second_names(own_scene), "what held it gone")
    assert own_scene.docker.image(own_scene.ground.image)["Id"] == image
    own_scene.stop()


def second_names(scene):
    names = [name for image in scene.docker.get("/images/json") for name in image["RepoTags"] or []]
    return [name for name in names if name.startswith("qfc-worker-hold:")]


def is_confined(container):
    host = container["HostConfig"]
    assert container["State"]["Running"] and container["Config"]["User"] == "65534:65534"
    assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert host["PidsLimit"] == 16 and host["Memory"] == 32 * 1024 * 1024
    assert host["SecurityOpt"] == ["no-new-privileges"] and host["RestartPolicy"]["Name"] == "always"
    assert "app" not in container["Config"]["Labels"]


def test_another_image_of_that_name(guarded):
    """Each new id is saved once, the last two are kept; the new one is held, and the one before keeps a name."""
    guarded.start(QFC_WORKER_IMAGE_HOLD="on")
    ids = [guarded.docker.image(guarded.ground.image)["Id"]]
    saved(guarded)
    guarded.wait_for_word("is held by container")
    for number in (2, 3):
        ids.append(changed_image(guarded, number))
        guarded.wait_for_word(f"is saved: {ids[-1][:19]}")
        guarded.wait_for_word(f"({ids[-1][:19]}) is held by container")
        guarded.worker.wait_for(lambda: len(holders(guarded)) == 1, "the former holder's end")
        assert holders(guarded)[0]["ImageID"] == ids[-1]
    guarded.worker.wait_for(lambda: len(second_names(guarded)) == 2, "a second name of both")
    by_name = {name.rpartition(".")[2]: guarded.docker.image(name)["Id"] for name in second_names(guarded)}
    assert by_name == {"now": ids[2], "before": ids[1]}
    assert sorted(manifest["id"] for manifest in backups(guarded.backup_directory)) == sorted(ids[1:])
    guarded.finishes(guarded.job())
    guarded.stop()


def test_one_of_several_workers(guarded):
    """Who has the lock saves and holds, once; when it ends, another one looks after the image."""
    for _ in range(2):
        guarded.start(QFC_WORKER_IMAGE_HOLD="on")
    processes = list(guarded.worker._started)
    logs = lambda text: sum(text in line for p in processes for line in p.output().messages())  # noqa: E731
    guarded.worker.wait_for(lambda: logs("is saved: ") and logs("is held by container"), "saved and held")
    first = next(p for p in processes if any("is saved: " in line for line in p.output().messages()))
    first.stop()
    lose(guarded)
    guarded.worker.wait_for(lambda: logs("is back after"), "the image's return")
    guarded.finishes(guarded.job())
    assert (logs("is saved: "), len(holders(guarded))) == (1, 1)
    for process in processes:
        process.stop()
    guarded.docker.remove(holders(guarded)[0]["Id"])


def test_a_damaged_backup_is_passed_over(guarded):
    """The newest is not as it was saved: that is said, and the one before is taken."""
    image = guarded.docker.image(guarded.ground.image)["Id"]
    assert guarded.worker.run("image", "save", guarded.ground.image).returncode == 0
    changed_image(guarded, 2)
    assert guarded.worker.run("image", "save", guarded.ground.image).returncode == 0
    newest = max(backups(guarded.backup_directory), key=lambda manifest: manifest["saved_at"])
    archive = guarded.backup_directory / newest["archive"]
    archive.write_bytes(archive.read_bytes()[:-1000])
    lose(guarded)
    job = guarded.job()
    guarded.start()
    guarded.finishes(job)
    assert guarded.docker.image(guarded.ground.image)["Id"] == image
    assert guarded.said("it was cut off", "error") == 1
    guarded.stop()


def test_without_a_backup_jobs_wait(own_scene):
    """Nothing can be done, and nothing is pulled: jobs stay pending, and are done when somebody has put it there."""
    shared = [name for name in own_scene.docker.image(own_scene.ground.image)["RepoTags"]][0]
    tar = own_scene.docker.bytes("GET", f"/images/{shared}/get")
    lose(own_scene)
    own_scene.start()
    job = own_scene.job()
    own_scene.wait_for_word(f"the engine has no image {own_scene.ground.image}")
    time.sleep(1)
    row = own_scene.row(job)
    assert (row["status"], row["feedback"], row["container_id"]) == ("pending", None, "")
    own_scene.docker.bytes("POST", "/images/load", tar, content_type="application/x-tar")
    own_scene.docker.tag(shared, *own_scene.ground.image.split(":"))
    own_scene.finishes(job)
    assert own_scene.starts(job) == 1
    own_scene.stop()
