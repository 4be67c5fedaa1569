"""What the stand-in's containers leave: the steps that they log, and feedback.json. Told by hand, as tests/standin
plays them, so that what is in the database can be compared to the last comma."""

import json
import re

from matrix_compare import UUID, Text, Uuid

WORKFLOWS = {
    "package": ("package_project", "Package Project", "2.0", [
        ("start_qgis_app", "Start QGIS Application"),
        ("download_project_directory", "Download Project Directory"),
        ("qgis_layers_data", "QGIS Layers Data"),
        ("package_project", "Package Project"),
        ("qfield_layer_data", "Packaged Layers Data"),
        ("stop_qgis_app", "Stop QGIS Application"),
        ("upload_packaged_project", "Upload Packaged Project"),
    ]),
    "delta_apply": ("apply_changes", "Apply Changes", "3.0", [
        ("start_qgis_app", "Start QGIS Application"),
        ("download_project_directory", "Download Project Directory"),
        ("apply_deltas", "Apply Deltas"),
        ("stop_qgis_app", "Stop QGIS Application"),
        ("upload_project_directory", "Upload Project"),
    ]),
    "process_projectfile": ("process_projectfile", "Process Projectfile", "2.0", [
        ("start_qgis_app", "Start QGIS Application"),
        ("download_project_directory", "Download Project Directory"),
        ("project_validity_check", "Project Validity Check"),
        ("opening_check", "Opening Check"),
        ("project_details", "Project Details"),
        ("generate_thumbnail_image", "Generate Thumbnail Image"),
        ("upload_thumbnail", "Upload Thumbnail Image"),
        ("stop_qgis_app", "Stop QGIS Application"),
    ]),
    "create_project": ("create_project", "Create Project", "2.0", [
        ("start_qgis_app", "Start QGIS Application"),
        ("create_project", "Create Project"),
        ("stop_qgis_app", "Stop QGIS Application"),
        ("upload_project_directory", "Upload Project"),
    ]),
}

DONE, FAILED, NOT_BEGUN = 2, 1, 0

QGIS_VERSION = "3.40.6-Bratislava"

PACKAGED_LAYERS = {
    "layers_by_id": {
        "points_1": {
            "id": "points_1", "name": "points", "crs": "EPSG:4326", "is_valid": True, "error_code": "no_error",
            "provider_name": "ogr", "type": 0, "geom_type": 0, "wkb_type_name": "Point",
        }
    }
}


def layer(name, geom_type, wkb_type_name):
    """A layer as process_projectfile describes it."""
    return {
        "id": f"{name}_1", "name": name, "crs": "EPSG:4326", "type": 0, "type_name": "Vector",
        "geom_type": geom_type, "wkb_type": 1, "wkb_type_name": wkb_type_name, "provider_name": "ogr",
        "datasource": f"/tmp/files/data.gpkg|layername={name}", "filename": "/tmp/files/data.gpkg",
        "is_valid": True, "is_localized": False, "error_code": "no_error", "error_summary": "",
        "error_message": "", "provider_error_summary": None, "provider_error_message": None,
        "qfs_action": None, "qfs_cloud_action": None, "qfs_photo_naming": None,
        "qfs_is_geometry_locked": None, "qfs_unsupported_source_pk": None, "qfc_source_data_pk_name": "fid",
    }


DETAILS = {
    "project_name": "a stand-in",
    "crs": "EPSG:4326",
    "qgis_version": QGIS_VERSION,
    "background_color": "#ffffff",
    "attachment_dirs": ["DCIM"],
    "data_dirs": [],
    "area_of_interest": "",
    "extent": "Polygon ((0.10000000000000001 0.2, 10.5 0.2, 10.5 5, 0.10000000000000001 5, 0.10000000000000001 0.2))",
    "ordered_layer_ids": ["points_1", "areas_1"],
    "layers_by_id": {"points_1": layer("points", 0, "Point"), "areas_1": layer("areas", 2, "Polygon")},
}

NAMELESS_DETAILS = {**DETAILS, "project_name": None}


def delta_result(index, delta, status, modified_pk):
    """What apply_deltas says about one delta."""
    applied = status == "status_applied"
    return {
        "delta_id": str(delta["id"]), "status": status, "modified_pk": modified_pk,
        "msg": "Successfully applied delta!" if applied else "Not applied.",
        "feature_pk": delta["content"]["sourcePk"], "layer_id": "points_1", "method": "patch",
        "delta_file_id": Uuid(), "delta_index": index,
        "conflicts": None, "e_type": None, "provider_errors": None,
    }


def returns(details=DETAILS, delta_results=()):
    """What each step returns, where it returns something."""
    return {
        "start_qgis_app": {"qgis_version": QGIS_VERSION},
        "download_project_directory": {"tmp_project_dir": "<non-serializable: PosixPath /tmp>"},
        "qgis_layers_data": PACKAGED_LAYERS,
        "qfield_layer_data": PACKAGED_LAYERS,
        "apply_deltas": {"delta_feedback": list(delta_results)},
        "project_details": {"project_details": details},
        "generate_thumbnail_image": {"thumbnail_filename": "<non-serializable: PosixPath /io/thumbnail.png>"},
    }


PUT_OUT = ("qgis_layers_data", "qfield_layer_data", "apply_deltas", "project_details")


def feedback(type, failed_in=None, outputs=True, **what):
    """feedback.json of a workflow that went well, or failed in a step (1 is the first); without what was put out."""
    workflow_id, workflow_name, version, steps = WORKFLOWS[type]
    stages = {id: stage for (id, _), stage in zip(steps, stages_of(type, failed_in))}
    returned = returns(**what)
    return {
        "feedback_version": "2.0",
        "workflow_version": version,
        "workflow_id": workflow_id,
        "workflow_name": workflow_name,
        "steps": [
            {"id": id, "name": name, "stage": stages[id], "returns": returned.get(id, {}) if stages[id] == DONE else {}}
            for id, name in steps
        ],
        "outputs": {
            id: returned[id] if id in PUT_OUT else {} for id, _ in steps if outputs and stages[id] == DONE
        },
    }


def stages_of(type, failed_in=None):
    count = len(WORKFLOWS[type][3])
    if failed_in is None:
        return [DONE] * count
    return [DONE] * (failed_in - 1) + [FAILED] + [NOT_BEGUN] * (count - failed_in)


def failure(error, error_class, error_type):
    """What a workflow's exception adds; `error` is a pattern."""
    return {
        "error": Text(error),
        "error_type": error_type,
        "error_class": error_class,
        "error_stack": Text(f"Traceback \\(most recent call last\\):\n  \\.\\.\\.\n{error_class}: {error}\n"),
    }


class Log:
    """A job's output: the whole log of a container, which begins and ends with the marks of these steps."""

    def __init__(self, type, failed_in=None):
        names = [name for _, name in WORKFLOWS[type][3]]
        self.marks = [(name, stage) for name, stage in zip(names, stages_of(type, failed_in)) if stage != NOT_BEGUN]

    def __eq__(self, other):
        if not isinstance(other, str) or not other.startswith("::<<<::"):
            return False
        begun = dict(re.findall(f"^::<<<::({UUID}) (.*)$", other, re.MULTILINE))
        ended = re.findall(f"^::>>>::({UUID}) ([0-9])$", other, re.MULTILINE)
        return [(begun.get(id), int(stage)) for id, stage in ended] == self.marks and len(begun) == len(ended)

    def __repr__(self):
        return f"<a log with the steps {self.marks}>"


def audit_text(value):
    """How an audit row writes a JSON field."""
    return json.dumps(value, sort_keys=True)
