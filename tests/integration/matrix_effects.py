"""What a job changes in QFieldCloud's tables: each function is one effect, said once, and changes the expectation.

`run` is one run of the program: the expected database (`run.expected`), the job's row as it was found afterwards
(`run.row`), from which times are taken where the tables must agree in them, and when the run began and ended.
"""

import datetime

from bed.schema import number
from matrix_compare import Between, Either, NewId, Text, Uuid
from matrix_feedback import DETAILS, Log, audit_text, delta_result, failure, feedback
from matrix_scene import ABSENT, CHANGED, NEW_LAYERS, SAME

HEXADECIMAL = "[0-9a-f]{64}"


class Run:
    """One job's part of a run of the program; effects are applied to it."""

    def __init__(self, database, expected, after, place, began, ended):
        self.database, self.expected, self.place, self.began, self.ended = database, expected, place, began, ended
        self.project = place.project
        self.row = after["core_job"][str(place.job["id"])]
        self.type = self.row["type"]

    def since(self, release):
        return number(self.database.release) >= number(release)

    def change_project(self, **columns):
        self.expected.change(self.database.project_table, self.project["id"], **columns)

    def project_before(self):
        return self.expected.rows[self.database.project_table][str(self.project["id"])]

    def container_feedback(self, failed_in=None, outputs=True):
        results = [
            delta_result(index, delta, said, int(pk) if pk and pk.isdigit() else pk)
            for index, (delta, (_, said, _, pk)) in enumerate(zip(self.place.deltas, self.place.results))
            if said != "-"
        ]
        return feedback(self.type, failed_in, outputs, delta_results=results, details=self.place.details)


# The job's own row


def change_job(run, status, output, feedback, ran=True):
    """The columns of core_job that a worker writes. Of a container that never ran there are neither id nor times."""
    row, began, ended = run.row, run.began, run.ended
    times = {
        "started_at": Between(began, row["docker_started_at"] or row["finished_at"]),
        "docker_started_at": Between(row["started_at"], row["docker_finished_at"]) if ran else None,
        "docker_finished_at": Between(row["docker_started_at"], row["finished_at"]) if ran else None,
        "finished_at": Between(row["docker_finished_at"] or row["started_at"], ended),
    }
    updated_before = run.expected.rows["core_job"][row["id"]]["updated_at"]
    run.expected.change(
        "core_job", row["id"], status=status, output=output, feedback=feedback,
        container_id=Text(HEXADECIMAL) if ran else "", updated_at=Either(updated_before, Between(began, ended)),
        **times,
    )


def finished(run):
    """`finished`, with the container's log, and its feedback with the exit code."""
    change_job(run, "finished", Log(run.type), {**run.container_feedback(), "container_exit_code": 0})


def failed_by_its_step(number, error, error_class):
    """`failed`, by an error in the feedback of a container that exits 0."""

    def failed(run):
        reason = {**failure(error, error_class, "UNKNOWN"), "error_origin": "container"}
        said = {**run.container_feedback(failed_in=number), "container_exit_code": 0}
        change_job(run, "failed", Log(run.type, failed_in=number), {**said, **reason})

    return failed


def by_worker(pattern):
    return {
        "error": Text(pattern),
        "error_class": Text(".+"),
        "error_stack": Text(".*"),
        "error_origin": "worker_wrapper",
    }


def failed_before_its_container(pattern):
    """`failed`; the feedback has the reason and nothing else, the output is one line with it."""

    def failed(run):
        change_job(run, "failed", Text(f"[^\n]*{pattern}[^\n]*\n?"), by_worker(f".*{pattern}.*"), ran=False)

    return failed


def failed_by_its_hook(pattern, outputs=True):
    """`failed`, though the container did well: its output and feedback are kept, with the worker's reason added."""

    def failed(run):
        said = {**run.container_feedback(outputs=outputs), "container_exit_code": 0}
        change_job(run, "failed", Log(run.type), {**said, **by_worker(f".*({pattern}).*")})

    return failed


# package


def packaged_at_its_start(run):
    """The project's data_last_packaged_at is when the container was started."""
    run.change_project(data_last_packaged_at=run.row["docker_started_at"])


def obsolete_packages_gone(run):
    """Files of packages that nobody needs are gone, with their versions; three audit rows tell of each."""
    for _, files, kept in run.place.packages:
        for file in [] if kept else files:
            row = run.expected.rows["filestorage_file"][str(file["id"])]
            version = run.expected.rows["filestorage_fileversion"][row["latest_version_id"]]
            audit(run, 1, "file", row["id"], file_repr(run, row), {"latest_version": [version["id"], "None"]})
            audit(run, 2, "fileversion", version["id"], version_repr(run, row, version), version_deleted(version))
            audit(run, 2, "file", row["id"], file_repr(run, row), file_deleted(row))
            run.expected.remove("filestorage_file", row["id"])
            run.expected.remove("filestorage_fileversion", version["id"])


def file_deleted(row):
    return gone(
        id=row["id"], name=row["name"], file_type=row["file_type"], project=row["project_id"],
        package_job=row["package_job_id"], latest_version=row["latest_version_id"], uploaded_by=row["uploaded_by_id"],
        uploaded_at=audit_time(row["uploaded_at"]), created_at=audit_time(row["created_at"]),
        versions="filestorage.FileVersion.None",
    )


def version_deleted(row):
    return gone(
        id=row["id"], file=row["file_id"], file_storage=row["file_storage"], content=row["content"], etag=row["etag"],
        size=row["size"], uploaded_by=row["uploaded_by_id"], uploaded_at=audit_time(row["uploaded_at"]),
        created_at=audit_time(row["created_at"]), legacy_id=row["legacy_id"],
    )


def gone(**fields):
    return {name: [str(value), "None"] for name, value in fields.items() if value is not None}


# delta_apply


def deltas_have_their_results(run):
    """Each delta, and the job's row for it, has what the feedback says of it; `error` where it says nothing."""
    said = run.container_feedback()["outputs"]["apply_deltas"]["delta_feedback"]
    results = {result["delta_id"]: result for result in said}
    for delta, (_, _, status, modified_pk) in zip(run.place.deltas, run.place.results):
        change_delta(run, delta, status, results.get(str(delta["id"])), modified_pk)


def all_deltas_in_error(run):
    """All of the job's deltas are `error`, with neither feedback nor key."""
    for delta in run.place.deltas:
        change_delta(run, delta, "error", None, None)


def change_delta(run, delta, status, feedback, modified_pk):
    run.expected.change(
        "core_delta", delta["id"], last_status=status, last_feedback=feedback, last_modified_pk=modified_pk,
        last_apply_attempt_at=run.row["started_at"], last_apply_attempt_by_id=run.row["created_by_id"],
    )
    (own,) = [
        row["id"]
        for row in run.expected.rows["core_applyjobdelta"].values()
        if (row["apply_job_id"], row["delta_id"]) == (run.row["id"], str(delta["id"]))
    ]
    run.expected.change("core_applyjobdelta", own, status=status, feedback=feedback, modified_pk=modified_pk)


def data_updated_now(run):
    """The project's data_last_updated_at is when the outcome was written."""
    run.change_project(data_last_updated_at=Between(run.row["docker_finished_at"], run.ended))


# process_projectfile


def details_taken(run):
    """project_details are the feedback's; from v26.20 on qgis_version, too, where the project had none. Audited."""
    before, details = run.project_before(), run.place.details
    changes = {"project_details": [audit_text(before["project_details"]), audit_text(details)]}
    run.change_project(project_details=details)
    if run.since("v26.20") and before["qgis_version"] is None:
        run.change_project(qgis_version=details["qgis_version"])
        changes["qgis_version"] = ["None", details["qgis_version"]]
    audit(run, 1, "project", run.project["id"], project_repr(run), changes)


def qgis_project_written(run):
    """From v26.22 on: the row of the QGIS project is made, or brought in line."""
    if not run.since("v26.22"):
        return
    written = Between(run.row["docker_finished_at"], run.ended)
    extent = "SRID=4326;POLYGON((0.1 0.2, 10.5 0.2, 10.5 5, 0.1 5, 0.1 0.2))"
    columns = {
        "file_version_id": str(run.place.qgis_file["latest_version_id"]), "name": "a stand-in",
        "qgis_version": DETAILS["qgis_version"], "crs": "EPSG:4326", "background_color": "#ffffff",
        "extent": run.database.value("SELECT to_jsonb(%s::geometry)", extent),
        "custom_properties": {"attachment_dirs": ["DCIM"], "data_dirs": []}, "updated_at": written,
    }
    if run.since("v26.25"):
        columns["area_of_interest"] = None
    if run.place.fresh:
        run.expected.add("project_qgisproject", project_id=str(run.project["id"]), created_at=written, **columns)
    else:
        run.expected.change("project_qgisproject", run.project["id"], **columns)


def layers_brought_in_line(run):
    """From v26.22 on: new layers are added, changed ones changed, absent ones gone; what is the same is untouched."""
    if not run.since("v26.22"):
        return
    written = Between(run.row["docker_finished_at"], run.ended)
    for ordering, name in enumerate((SAME, CHANGED)):
        columns = {**NEW_LAYERS[name], "ordering": ordering}
        if run.place.fresh:
            identity = {"id": Uuid(), "qgis_layer_id": name, "qgis_project_id": str(run.project["id"])}
            run.expected.add("project_qgislayer", **identity, created_at=written, updated_at=written, **columns)
        elif name == CHANGED:
            run.expected.change("project_qgislayer", run.place.layers[name]["id"], updated_at=written, **columns)
    if not run.place.fresh:
        run.expected.remove("project_qgislayer", run.place.layers[ABSENT]["id"])


def details_null(run):
    """project_details are null; audited where they were not."""
    before = run.project_before()["project_details"]
    run.change_project(project_details=None)
    if before is not None:
        changes = {"project_details": [audit_text(before), "null"]}
        audit(run, 1, "project", run.project["id"], project_repr(run), changes)


def qgis_project_and_layers_gone(run):
    """From v26.22 on: neither the QGIS project's row nor those of its layers are left."""
    if not run.since("v26.22") or run.place.fresh:
        return
    run.expected.remove("project_qgisproject", run.project["id"])
    for layer in run.place.layers.values():
        run.expected.remove("project_qgislayer", layer["id"])


# Audit rows


def audit(run, action, model, key, repr_, changes):
    """A row as the web application's models would have written it: 1 is an update, 2 a deletion."""
    app = {"project": "project" if run.since("v26.21") else "core"}.get(model, "filestorage")
    kind = run.database.value("SELECT id FROM django_content_type WHERE app_label = %s AND model = %s", app, model)
    run.expected.add(
        "auditlog_logentry", id=NewId(), action=action, content_type_id=kind, object_pk=str(key),
        object_id=key if isinstance(key, int) else None, object_repr=repr_, changes=changes,
        timestamp=Between(run.row["docker_finished_at"] or run.row["started_at"], run.ended), changes_text="",
        actor_id=None, remote_addr=None, cid=None, serialized_data=None, additional_data=None, remote_port=None,
        actor_email=None,
    )


def utc(text):
    return datetime.datetime.fromisoformat(text).astimezone(datetime.timezone.utc)


def audit_time(text):
    return utc(text).strftime("%Y-%m-%d %H:%M:%S.%f")


def project_repr(run):
    owner, project = run.place.owner["username"], run.project
    if run.since("v26.22"):
        return f"{owner}/{project['name']} [id={project['id']}]"
    return f"{project['name']} ({project['id']}) owner: {owner}"


def file_repr(run, row):
    if run.since("v26.22"):
        return f"{row['project_id']}/{row['name']} [id={row['id']}]"
    return f'File({row["id"]}) in "{row["project_id"]}" "{row["name"]}"'


def version_repr(run, row, version):
    name = utc(version["uploaded_at"]).strftime("v%Y%m%d%H%M%S")
    if run.since("v26.22"):
        return f"{row['project_id']}/{row['name']}/{name} [id={version['id']}]"
    return f'FileVersion({version["id"]}) in "{row["project_id"]}" "{row["name"]}" "{name}"'
