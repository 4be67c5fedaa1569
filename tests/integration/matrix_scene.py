"""The rows before a job: its project with everything around it that a job could touch by mistake, and a second one."""

from bed.rows import PACKAGE_FILE, PROJECT_FILE
from bed.schema import number
from matrix_feedback import DETAILS

LONG_AGO = "2026-01-02T03:04:05.060708+00:00"
OLD_VERSION = "3.30.1"
OLD_DETAILS = {"project_name": "Bäume", "crs": "EPSG:3857", "attachment_dirs": [], "layers_by_id": {"b": 2, "a": [1.5]}}
OLD_EXTENT = "SRID=4326;POLYGON((1 1,2 1,2 2,1 2,1 1))"

# What a delta_apply job is about: sourcePk, what the container says of it (`-`: nothing), and what QFieldCloud's tables
# then say: status, last_modified_pk.
DELTAS = [
    ("12", "status_applied", "applied", "12"),  # feedback: the number 12
    ("text", "status_applied", "applied", "text"),
    ("3", "status_conflict", "conflict", None),
    ("4", "status_apply_failed", "not_applied", None),
    ("5", "-", "error", None),
    ("6", "status_something_else", "error", None),
]
APPLIED = DELTAS[:2]
CONFLICTS = [(pk, "status_conflict", "conflict", None) for pk in ("1", "2")]

# A layer of the project that is what the feedback says of it, one that is not any more, and one that is none any more.
SAME, CHANGED, ABSENT = "points_1", "areas_1", "gone_1"

# The packages of each project, oldest first: made for whom, how that job ended (no job: the file belongs to none), and
# whether the files outlive a package job for the editor.
PACKAGES = [
    ("owner", "finished", False),
    ("owner", "finished", True),  # the owner's newest
    ("editor", "finished", False),  # the new one is newer
    ("reader", "finished", False),
    ("reader", "failed", True),  # the reader's newest, whatever became of it
    ("ghost", "finished", False),  # an incognito collaborator needs none
    ("stranger", "finished", False),  # who cannot see the project
    ("stranger", "stopped", True),  # a job that neither finished nor failed
    (None, None, False),
]
PACKAGE_NAMES = ("data.gpkg", "Größe.qgz")


class Place:
    """A project and all that belongs to it. Its QGIS file says what its container plays (None: there is no such file),
    and `details` are what process_projectfile then finds in it; `fresh`: it was never processed."""

    def __init__(self, database, plays="offline", fresh=False, details=DETAILS, qgis_version=OLD_VERSION):
        self.database, self.fresh, self.details = database, fresh, details
        self.qgis_version = None if fresh else qgis_version
        names = ("owner", "editor", "reader", "ghost", "stranger")
        self.people = {name: database.user() for name in names}
        self.owner = self.people["owner"]
        self.job, self.deltas, self.results = None, [], []
        self.project = self._project(plays and f"{plays}.qgs")
        self._people_around()
        self.packages = [self._package(*made) for made in PACKAGES]
        self._history()
        self.layers, self.qgis_file = {}, plays and self._second_version(f"{plays}.qgs")
        if number(database.release) >= number("v26.22") and not fresh:
            self._qgis_project()

    def _project(self, qgis_file):
        values = {
            "data_last_packaged_at": LONG_AGO,
            "data_last_updated_at": LONG_AGO,
            "updated_at": LONG_AGO,
            "thumbnail": "projects/thumbnail_of_before.png",
            "project_details": None if self.fresh else OLD_DETAILS,
        }
        if number(self.database.release) >= number("v26.20"):
            values["qgis_version"] = self.qgis_version
        return self.database.project(self.owner, qgis_file, files=("data.gpkg", "DCIM/photo.jpg"), **values)

    def _people_around(self):
        self.database.collaborator(self.project, self.people["editor"])
        self.database.collaborator(self.project, self.people["reader"], "reader")
        self.database.collaborator(self.project, self.people["ghost"], "reader", is_incognito=True)
        self.database.secret("A_SECRET", "in the clear", project=self.project)
        self.database.secret("A_SERVICE", "[service]\n", "pgservice", project=self.project, user=self.owner)
        self.database.token(self.owner)  # of another job of theirs
        self.database.token(self.owner, client_type="qfield")

    def _package(self, name, status, kept):
        job = self.database.job(self.project, status=status, user=self.people[name]) if name else None
        names = PACKAGE_NAMES if job else ("without job.gpkg",)
        files = [self.database.file(self.project, name, None, PACKAGE_FILE, job) for name in names]
        return job, files, kept

    def _history(self):
        """Audit rows, and an earlier delta_apply job: over a delta that is applied, and one that waits again."""
        kind = self.database.value("SELECT id FROM django_content_type WHERE model = 'project'")
        values = {"content_type_id": kind, "object_pk": str(self.project["id"]), "action": 1}
        self.database.insert("auditlog_logentry", **values, changes={"name": ["a", "b"]})
        done = {"last_feedback": {"status": "status_applied"}, "last_modified_pk": "7"}
        self.past = [
            self.database.delta(self.project, status="applied", content={"sourcePk": "7"}, **done),
            self.database.delta(self.project, status="pending", content={"sourcePk": "8"}),
        ]
        job = self.database.apply_job(self.project, self.past, status="finished", finished_at=LONG_AGO)
        self.database.execute("UPDATE core_applyjobdelta SET status = 'applied' WHERE apply_job_id = %s", job["id"])

    def _second_version(self, name):
        file = self.database.one(
            "SELECT * FROM filestorage_file WHERE project_id = %s AND name = %s AND file_type = %s",
            self.project["id"], name, PROJECT_FILE,
        )
        self.first_version = file["latest_version_id"]
        return self.database.version(file, f"projects/{self.project['id']}/files/{name}.2", b"<qgis></qgis>\n")

    def _qgis_project(self):
        values = {"area_of_interest": OLD_EXTENT} if number(self.database.release) >= number("v26.25") else {}
        self.database.insert(
            "project_qgisproject", project_id=self.project["id"], file_version_id=self.first_version, name="Bäume",
            qgis_version=OLD_VERSION, crs="EPSG:3857", extent=OLD_EXTENT, background_color="#abcdef",
            custom_properties={"attachment_dirs": [], "data_dirs": ["data"]}, created_at=LONG_AGO, updated_at=LONG_AGO,
            **values,
        )
        for ordering, name in enumerate((SAME, CHANGED, ABSENT)):
            self.layers[name] = self.database.insert(
                "project_qgislayer", qgis_project_id=self.project["id"], qgis_layer_id=name, created_at=LONG_AGO,
                updated_at=LONG_AGO, **LAYERS[name], ordering=ordering,
            )

    def queue(self, type, deltas=()):
        """The job under test, by the owner and for the editor; `deltas` is a table as DELTAS."""
        who = {"created_by_id": self.owner["id"], "triggered_by_id": self.people["editor"]["id"]}
        self.results = deltas
        for source_pk, *_ in deltas:
            values = {"last_modified_pk": "of before", "last_feedback": {"of": "before"}}
            self.deltas.append(self.database.delta(self.project, content={"sourcePk": source_pk}, **values))
        if type == "delta_apply":
            before = {"status": "failed", "finished_at": LONG_AGO}
            self.database.apply_job(self.project, self.deltas, **before)
            self.job = self.database.apply_job(self.project, self.deltas, **who)
        else:
            self.job = self.database.job(self.project, type, **who)
        if type == "package":  # what its container will have uploaded
            self.database.file(self.project, "data.gpkg", None, PACKAGE_FILE, self.job)
        return self

    def run_elsewhere(self):
        """A delta_apply job that another worker runs right now."""
        values = {"status": "started", "container_id": "c0ffee" + "0" * 58}
        deltas = [self.database.delta(self.project, status="started") for _ in range(2)]
        job = self.database.apply_job(self.project, deltas, **values)
        self.database.execute("UPDATE core_job SET started_at = now() WHERE id = %s", job["id"])
        self.database.execute("UPDATE core_applyjobdelta SET status = 'started' WHERE apply_job_id = %s", job["id"])

    def break_a_package(self):
        """A file of the project takes the version of an obsolete package for its own: that cannot be deleted."""
        version = self.packages[0][1][0]["latest_version_id"]
        file = self.database.file(self.project, "broken.gpkg")
        self.database.update("filestorage_file", file["id"], latest_version_id=version)


SETTINGS = {
    "qfs_action": None, "qfs_cloud_action": None, "qfs_photo_naming": None, "qfs_is_geometry_locked": None,
    "qfs_unsupported_source_pk": None, "qfc_source_data_pk_name": "fid",
}


def layer_row(name, geom_type, wkb_type_name):
    """The columns of project_qgislayer that say what matrix_feedback.layer says, but for the ordering."""
    return {
        "name": name, "crs": "EPSG:4326", "geom_type": geom_type, "wkb_type_name": wkb_type_name, "layer_type": 0,
        "provider_name": "ogr", "datasource": f"/tmp/files/data.gpkg|layername={name}",
        "file_name": "/tmp/files/data.gpkg", "is_valid": True, "is_localized": False, "error_code": "no_error",
        "error_summary": "", "error_message": "", "provider_error_summary": "", "provider_error_message": "",
        "qfs_settings": SETTINGS,
    }


NEW_LAYERS = {SAME: layer_row("points", 0, "Point"), CHANGED: layer_row("areas", 2, "Polygon")}
LAYERS = {
    SAME: NEW_LAYERS[SAME],
    CHANGED: {**NEW_LAYERS[CHANGED], "name": "surfaces", "is_valid": False, "qfs_settings": {}},
    ABSENT: layer_row("gone", 1, "LineString"),
}
