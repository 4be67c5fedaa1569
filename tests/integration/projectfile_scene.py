"""What the tests of process_projectfile share: details as a container would bring them, and the jobs that bring them."""

import json
import os
import subprocess

import pytest

RELEASES = ["v25.30", "v26.10", "v26.20", "v26.22", "v26.25"]
WITH_QGIS_VERSION = ["v26.20", "v26.22", "v26.25"]
WITH_QGIS_PROJECT = ["v26.22", "v26.25"]
BY_RELEASE = {name: pytest.mark.parametrize("database", list_, indirect=True) for name, list_ in {
    "all": RELEASES, "version": WITH_QGIS_VERSION, "project": WITH_QGIS_PROJECT, "newest": ["v26.25"],
    "oldest": ["v25.30"], "v26.22": ["v26.22"],
}.items()}  # fmt: skip

LAYER = {
    "id": "x", "name": "a layer", "crs": "EPSG:4326", "type": 0, "geom_type": 0, "wkb_type_name": "Point",
    "provider_name": "ogr", "datasource": "/tmp/x.gpkg", "filename": "x.gpkg", "is_valid": True, "is_localized": False,
    "error_code": "no_error", "error_summary": "", "error_message": "", "provider_error_summary": None,
    "provider_error_message": None, "qfs_action": None, "qfs_cloud_action": "no_action", "qfs_photo_naming": {"a": "b"},
    "qfs_is_geometry_locked": None, "qfs_unsupported_source_pk": None, "qfc_source_data_pk_name": "fid",
}  # fmt: skip
BOX = "Polygon ((1 2, 3 2, 3 4, 1 4, 1 2))"
MADE_BOX = "POLYGON((1 2,3 2,3 4,1 4,1 2))"


def details(*ids, **members):
    """Good project details with these layers; a member that is `...` is left out."""
    full = {
        "background_color": "#ff00ff", "extent": BOX, "crs": "EPSG:4326", "project_name": "a project",
        "qgis_version": "3.30.0", "area_of_interest": "", "attachment_dirs": ["DCIM", "files"], "data_dirs": ["data"],
        "layers_by_id": {id_: {**LAYER, "id": id_, "name": f"layer {id_}"} for id_ in ids},
        "ordered_layer_ids": list(ids), **members,
    }  # fmt: skip
    return {name: value for name, value in full.items() if value is not ...}


class Process:
    """Makes projects whose container brings given details, and runs all jobs that are pending."""

    def __init__(self, database, worker, tmp_path):
        self.database, self.worker, self.output = database, worker, None
        self.program = os.path.join(os.path.dirname(worker.binary), "tests", "finish-job")
        self.feedback = str(tmp_path / "feedback.json")

    def project(self, given=None, whole=False, **values):
        """`given` is the details as data or as JSON text; `whole`: all of the feedback."""
        values.setdefault("qgis_file", "details@bare.qgs")
        project = self.database.project(files=(), **values)
        if given is not None:
            self.give(project, given, "given.json" if whole else "details.json")
        return project

    def give(self, project, given, name="details.json"):
        text = given if isinstance(given, str) else json.dumps(given)
        key = f"projects/{project['id']}/files/{name}"
        if key in self.database.objects:
            self.database.objects[key] = text.encode()
        else:
            self.database.file(project, name, text.encode())

    def job(self, project, **values):
        return self.database.job(project, "process_projectfile", **values)

    def drain(self):
        self.output = self.worker.run("run", "--drain", "--concurrency", 3)
        assert self.output.returncode == 0, self.output

    def run(self, project, status="finished"):
        """One job of the project, to its end; returns its row."""
        job = self.job(project)
        self.drain()
        return self.ended(job, status)

    def ended(self, job, status="finished"):
        row = self.database.get("core_job", job["id"])
        assert row["status"] == status, f"{row['feedback'].get('error')}\n{self.output}"
        assert row["finished_at"] >= row["started_at"]
        return row

    # Rows

    def row(self, project):
        return self.database.get(self.database.project_table, project["id"])

    def qgis_project(self, project):
        area = ", ST_AsText(area_of_interest) AS area_of_interest" if self.database.release == "v26.25" else ""
        return self.database.one(
            f"SELECT *, ST_AsText(extent) AS extent, ST_SRID(extent) AS extent_srid{area}, xmin::text AS version"
            " FROM project_qgisproject WHERE project_id = %s", project["id"])

    def layers(self, project):
        return self.database.execute(
            "SELECT *, xmin::text AS version FROM project_qgislayer WHERE qgis_project_id = %s ORDER BY ordering",
            project["id"])

    def audit(self, project):
        return self.database.execute(
            "SELECT a.*, c.app_label || '.' || c.model AS content_type FROM auditlog_logentry a"
            " JOIN django_content_type c ON c.id = a.content_type_id WHERE object_pk = %s ORDER BY a.id",
            str(project["id"]))

    def changes(self, project):
        return [row["changes"] for row in self.audit(project)]

    # Without a container: the shipped reviews and writes, sent by the program's own queue (tests/live/finish_job.c)

    def finish(self, project, given=None, **options):
        """Ends one job of the project with these details, or without feedback; returns what is told and the job's row."""
        job = self.job(project)
        if given is not None:
            with open(self.feedback, "w", encoding="utf-8") as file:
                text = given if isinstance(given, str) else json.dumps(given)
                file.write('{"outputs": {"project_details": {"project_details": %s}}}' % text)
            options["feedback"] = self.feedback
        words = [self.program, "process_projectfile", str(job["id"]), str(project["id"])]
        words += [f"{name}={value}" for name, value in options.items()]
        env = {**self.worker.env, "QFC_TEST_DATABASE_URL": self.database.url}
        done = subprocess.run(words, env=env, capture_output=True, encoding="utf-8")
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout), self.database.get("core_job", job["id"])

    def finished(self, project, given, **options):
        """The same, and it must go well."""
        told, row = self.finish(project, given, **options)
        assert (told["error"], row["status"]) == (None, "finished")
        return told

    def refused(self, project, given, reason):
        """The same, and it must be refused with that sentence; the job has failed then."""
        told, row = self.finish(project, given)
        assert (told["error"], row["status"]) == (reason, "failed")
