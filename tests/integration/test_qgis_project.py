"""The QGIS project and its layers as rows (v26.22 and later), made by process_projectfile jobs through the whole worker."""

import pytest
from projectfile_scene import BY_RELEASE, LAYER, MADE_BOX, Process, details

METRES = "Polygon ((2600000 1200000, 2600100 1200000, 2600100 1200100, 2600000 1200100, 2600000 1200000))"
NO = None


@pytest.fixture
def process(database, worker, tmp_path):
    return Process(database, worker, tmp_path)


def layered(*layers, **members):
    """Details with layers of given ids: (id, {what differs from a good one})."""
    by_id = {id_: {name: v for name, v in {**LAYER, **odd}.items() if v is not ...} for id_, odd in layers}
    return details(**{"layers_by_id": by_id, "ordered_layer_ids": [id_ for id_, _ in layers], **members})


# The QGIS project


@BY_RELEASE["project"]
def test_qgis_project(process, database):
    project = process.project(details(qgis_version="x" * 101, area_of_interest=BOX_OF_INTEREST), qgis_version="3")
    process.run(project)
    first = process.qgis_project(project)
    version = database.value("SELECT latest_version_id FROM filestorage_file WHERE id = %s",
                             process.row(project)["the_qgis_file_id"])
    assert first["file_version_id"] == version
    assert (first["name"], first["qgis_version"], first["crs"]) == ("a project", "x" * 100, "EPSG:4326")
    assert first["background_color"] == "#ff00ff"
    assert first["custom_properties"] == {"attachment_dirs": ["DCIM", "files"], "data_dirs": ["data"]}
    assert (first["extent"], first["extent_srid"]) == (MADE_BOX, 4326)
    if database.release == "v26.25":
        assert first["area_of_interest"] == "POLYGON((1 1,2 1,2 2,1 1))"

    file = database.get("filestorage_file", process.row(project)["the_qgis_file_id"])
    newer = database.version(file, f"projects/{project['id']}/files/newer", b"<qgis/>")
    process.give(project, details(project_name="", qgis_version=..., crs=..., extent="", area_of_interest=None,
                                  background_color=None, attachment_dirs=[], data_dirs=None))  # fmt: skip
    process.run(project)
    second = process.qgis_project(project)
    assert second["file_version_id"] == newer["latest_version_id"]
    assert (second["name"], second["qgis_version"], second["crs"]) == ("", "", "")
    assert second["background_color"] == "#ffffff" and second["extent"] is None
    assert second["custom_properties"] == {"attachment_dirs": ["DCIM"], "data_dirs": []}
    assert second.get("area_of_interest") is None
    assert second["created_at"] == first["created_at"] and second["updated_at"] > first["updated_at"]


BOX_OF_INTEREST = "POLYGON((1 1,2 1,2 2,1 1))"

# What is wrong with an area in any release.
NO_AREAS = [
    "", "POLYGON EMPTY", "nonsense", "Polygon ((", "POLYGON((1 1,2 1,2 2))", "POLYGON((1 1,2 1,2 2,3 3))", "POINT(1 1)",
    "MULTIPOLYGON(((1 1,2 1,2 2,1 1)))", "GEOMETRYCOLLECTION EMPTY", "POLYGON Z ((1 1 1,2 1 1,2 2 1,1 1 1))",
    "POLYGON M ((1 1 1,2 1 1,2 2 1,1 1 1))", "SRID=3857;POLYGON((1 1,2 1,2 2,1 1))", "CURVEPOLYGON((1 1,2 1,2 2,1 1))",
    "SRID=999999999999;POLYGON((1 1,2 1,2 2,1 1))", "SRID=-1;POLYGON((1 1,2 1,2 2,1 1))", "POLYGON((1 1,2 1,2 2,1 1)) x",
    "POLYGON((nan nan,2 1,2 2,nan nan))", "POLYGON((inf 1,2 1,2 2,inf 1))", "POLYGON((1e999 1,2 1,2 2,1e999 1))",
    "0103", "ABCDEF", "{}", '{"type":"Polygon"}', "POLYGON" + "(" * 100000, "'; DROP TABLE core_job; --", "\ufffd", "(1 2)",
    '{"type":"Point","coordinates":[1,2]}', 7, ["a"], {"a": 1}, True, ...,
]  # fmt: skip

GOOD_AREAS = [
    ("POLYGON((1 1,2 1,2 2,1 1))", "POLYGON((1 1,2 1,2 2,1 1))"),
    ("SRID=4326;POLYGON((1 1,2 1,2 2,1 1))", "POLYGON((1 1,2 1,2 2,1 1))"),
    ("Polygon ((-180 -90, 180 -90, 180 90, -180 90, -180 -90))", "POLYGON((-180 -90,180 -90,180 90,-180 90,-180 -90))"),
    ("Polygon ((0 0, 9 0, 9 9, 0 0),(1 1, 2 1, 2 2, 1 1))", "POLYGON((0 0,9 0,9 9,0 0),(1 1,2 1,2 2,1 1))"),
    ("Polygon ((1e0 0.5, 5e-1 2, 0.10000000000000001 2, 1 0.5))", "POLYGON((1 0.5,0.5 2,0.1 2,1 0.5))"),
    ("Polygon ((1 1, 1 1, 1 1, 1 1, 1 1))", "POLYGON((1 1,1 1,1 1,1 1,1 1))"),
]

OFF_EARTH = "POLYGON((181 1,182 1,182 2,181 1))"
SWISS = (7.43863, 46.95108, 7.43995, 46.95198)


def check_extents(process, cases):
    """(extent, crs, what is made of it: a text, None, or about which box)."""
    project = process.project()
    for extent, crs, expected in cases:
        process.finished(project, details(extent=extent, crs=crs))
        made = process.qgis_project(project)
        if not isinstance(expected, tuple):
            assert made["extent"] == expected, (extent, crs)
            continue
        assert made["extent_srid"] == 4326
        box = process.database.one(
            "SELECT ST_XMin(extent) AS a, ST_YMin(extent) AS b, ST_XMax(extent) AS c, ST_YMax(extent) AS d"
            " FROM project_qgisproject WHERE project_id = %s", project["id"])
        assert tuple(box.values()) == pytest.approx(expected, abs=1e-4), (extent, crs)


@BY_RELEASE["newest"]
def test_extents_in_degrees(process):
    """From v26.25 on there is nothing else."""
    cases = [(extent, "EPSG:2056", NO) for extent in NO_AREAS]
    cases += [(extent, crs, made) for extent, made in GOOD_AREAS for crs in ("EPSG:2056", "")]
    cases += [(OFF_EARTH, "EPSG:4326", NO), (METRES, "EPSG:2056", NO)]
    check_extents(process, cases)


@BY_RELEASE["newest"]
def test_areas_of_interest(process):
    areas = [(area, NO) for area in [*NO_AREAS, OFF_EARTH, METRES]] + GOOD_AREAS
    project = process.project()
    for area, expected in areas:
        process.finished(project, details(area_of_interest=area, crs="EPSG:2056"))
        made = process.qgis_project(project)
        assert (made["area_of_interest"], made["extent"]) == (expected, MADE_BOX), area


@BY_RELEASE["v26.22"]
def test_extents_in_degrees_or_in_the_projects_system(process):
    """v26.22 and v26.23 give the one, v26.24 the other: the coordinates tell."""
    cases = [(extent, "EPSG:2056", NO) for extent in NO_AREAS]
    cases += [(extent, "EPSG:4326", made) for extent, made in GOOD_AREAS]
    cases += [(METRES, crs, SWISS) for crs in ("EPSG:2056", "epsg:2056")]
    systems = ["", None, ..., "EPSG:4326", "EPSG:999999", "USER:100000", "2056", "EPSG:", "EPSG:2056; DROP TABLE x",
               "+proj=merc +nadgrids=/etc/passwd", "EPSG:99999999999999999999", "x" * 5000, 7, ["EPSG:2056"]]  # fmt: skip
    cases += [(METRES, crs, NO) for crs in systems]
    huge = "POLYGON((1e300 1,2e300 1,2e300 2e300,1e300 1))"
    cases += [(huge, crs, NO) for crs in ("EPSG:4326", "EPSG:4258", "EPSG:32632", "EPSG:3035")]
    cases += [("POLYGON((1 1,2 1,2 2,1 1))", "", NO), (OFF_EARTH, "EPSG:4258", NO)]
    cases += [("Polygon ((0 0, 1113194.9 0, 1113194.9 1118890, 0 1118890, 0 0))", "EPSG:3857", (0, 0, 10, 10))]
    check_extents(process, cases)


# Layers


@BY_RELEASE["project"]
def test_layer_fields(process):
    bare = {"id": "bare", "name": "", "crs": "", "type": 1}
    nulls = {name: None for name in LAYER} | {"name": "n", "crs": "c", "type": 0, "is_valid": True, "is_localized": True}
    full = {**LAYER, "name": "f", "geom_type": 2, "type": 3, "is_valid": False, "error_code": "invalid_dataprovider",
            "error_summary": "s", "error_message": "m", "provider_error_summary": "ps", "provider_error_message": "pm",
            "qfs_photo_naming": {"a": [1, None]}, "is_localized": True}  # fmt: skip
    by_id = {"bare": bare, "full": full, "nulls": nulls}
    project = process.project()
    process.finished(project, details(layers_by_id=by_id, ordered_layer_ids=["full", "nulls", "bare"]))
    made = {row["qgis_layer_id"]: row for row in process.layers(project)}
    assert [row["qgis_layer_id"] for row in process.layers(project)] == ["full", "nulls", "bare"]

    def columns(id_, *names):
        return tuple(made[id_][name] for name in names)

    texts = ("wkb_type_name", "provider_name", "datasource", "file_name", "error_code", "error_summary",
             "error_message", "provider_error_summary", "provider_error_message")  # fmt: skip
    empty = ("", "", "", "", "no_error", "", "", "", "")
    assert columns("bare", *texts) == columns("nulls", *texts) == empty
    assert columns("full", *texts) == (
        "Point", "ogr", "/tmp/x.gpkg", "x.gpkg", "invalid_dataprovider", "s", "m", "ps", "pm")
    some = ("name", "crs", "geom_type", "layer_type", "ordering", "is_valid", "is_localized")
    assert columns("bare", *some) == ("", "", 4, 1, 2, False, False)
    assert columns("nulls", *some) == ("n", "c", 4, 0, 1, True, True)
    assert columns("full", *some) == ("f", "EPSG:4326", 2, 3, 0, False, True)
    settings = [name for name in LAYER if name.startswith(("qfs_", "qfc_"))]
    assert len(settings) == 6
    assert made["full"]["qfs_settings"] == {name: full[name] for name in settings}
    assert made["bare"]["qfs_settings"] == made["nulls"]["qfs_settings"] == dict.fromkeys(settings)


def told(process, project):
    return [(row["qgis_layer_id"], row["name"], row["ordering"]) for row in process.layers(project)]


@BY_RELEASE["project"]
def test_layers_that_come_go_move_and_change(process):
    project = process.project(details("a", "b", "c", "d"))
    process.run(project)
    before = {row["qgis_layer_id"]: row for row in process.layers(project)}
    given = details("a", "d", "c", "e")
    given["layers_by_id"]["c"]["qfs_photo_naming"] = {"a": "c"}
    process.give(project, given)
    process.run(project)
    after = {row["qgis_layer_id"]: row for row in process.layers(project)}
    assert told(process, project) == [("a", "layer a", 0), ("d", "layer d", 1), ("c", "layer c", 2), ("e", "layer e", 3)]
    assert after["a"] == before["a"]  # its row's version as well
    assert after["c"]["qfs_settings"]["qfs_photo_naming"] == {"a": "c"}
    for id_ in ("c", "d"):
        assert after[id_]["id"] == before[id_]["id"] and after[id_]["created_at"] == before[id_]["created_at"]
        assert after[id_]["updated_at"] > before[id_]["updated_at"] and after[id_]["version"] != before[id_]["version"]


@BY_RELEASE["newest"]
def test_each_field_of_a_layer_is_compared(process):
    """A change of any one of them alone is seen."""
    others = {"name": "N", "crs": "C", "type": 9, "geom_type": 9, "is_valid": False, "is_localized": True,
              "qfs_photo_naming": {"a": "c"}}  # fmt: skip
    fields = [name for name in LAYER if name != "id"]
    project = process.project()
    process.finished(project, layered(*((name, {}) for name in fields)))
    before = {row["qgis_layer_id"]: row for row in process.layers(project)}
    process.finished(project, layered(*((name, {name: others.get(name, "another")}) for name in fields)))
    for row in process.layers(project):
        old = before[row["qgis_layer_id"]]
        changed = {name for name in row if row[name] != old[name]} - {"version", "updated_at"}
        assert len(changed) == 1 and row["updated_at"] > old["updated_at"], row["qgis_layer_id"]


@BY_RELEASE["project"]
def test_ids_without_layer_and_ids_that_appear_twice(process):
    layers = details("a", "b", "c")["layers_by_id"] | {"null": None, "5": {**LAYER, "name": "five"}}
    order = ["gone", "a", 5, None, {"a": 1}, ["b"], "b", "null", "a"]
    project = process.project()
    for _ in range(2):
        process.finished(project, details(layers_by_id=layers, ordered_layer_ids=order))
        assert told(process, project) == [("b", "layer b", 6), ("a", "layer a", 8)]


@BY_RELEASE["project"]
def test_projects_without_layers(process):
    project = process.project()
    for nothing in ({"layers_by_id": {}}, {"layers_by_id": None}, {"layers_by_id": ...}, {"layers_by_id": []},
                    {"ordered_layer_ids": []}):  # fmt: skip
        process.finished(project, details("a"))
        assert len(process.layers(project)) == 1
        process.finished(project, details("a", **nothing))
        assert process.layers(project) == [], nothing


IN = "in the project's details"
LAYER_OF = "layer \"a\" of the project's details: "
BIG_ID = "".join(chr(0x4E00 + n) for n in range(900))
REFUSED = [
    ({"project_name": None}, f"project_name is missing or null {IN}"),
    ({"project_name": ...}, f"project_name is missing or null {IN}"),
    ({"qgis_version": 3}, f"qgis_version {IN} is not a text"),
    ({"background_color": "#ffffffff"}, f"background_color {IN} is longer than 7 characters"),
    ({"ordered_layer_ids": None}, f"ordered_layer_ids is missing {IN}, or not a list"),
    ({"ordered_layer_ids": ...}, f"ordered_layer_ids is missing {IN}, or not a list"),
    ({"ordered_layer_ids": {"a": 1}}, f"ordered_layer_ids is missing {IN}, or not a list"),
    ({"layers_by_id": [LAYER]}, f"layers_by_id {IN} is not an object"),
    ({"layers_by_id": "x"}, f"layers_by_id {IN} is not an object"),
    ({"layers_by_id": {"a": "x"}}, f"{LAYER_OF}it is not an object"),
    ({"layers_by_id": {BIG_ID: LAYER}, "ordered_layer_ids": [BIG_ID]},
     f"layer \"{BIG_ID[:100]}\" of the project's details: its id is longer than 2600 bytes"),
]  # fmt: skip
REFUSED_LAYERS = [
    *(({name: value}, f"{name} is missing or null") for name in ("name", "crs", "type") for value in (None, ...)),
    *(({name: value}, f"{name} is not a number from 0 to 32767")
      for name in ("type", "geom_type") for value in ("0", -1, 32768, 1e30, 10**40, [], {"a": 1}, True)),
    *(({name: value}, f"{name} is not true or false") for name in ("is_valid", "is_localized") for value in (None, 1)),
    ({"wkb_type_name": "x" * 51}, "wkb_type_name is longer than 50 characters"),
    ({"provider_name": "x" * 51}, "provider_name is longer than 50 characters"),
    ({"error_code": "x" * 101}, "error_code is longer than 100 characters"),
]  # fmt: skip


@BY_RELEASE["project"]
def test_what_cannot_be_written(process, database):
    """Each fails its job with a sentence, and leaves no half of it."""
    cases = [(details("a", **members), reason) for members, reason in REFUSED]
    cases += [(layered(("good", {}), ("a", odd)), LAYER_OF + reason) for odd, reason in REFUSED_LAYERS]
    cases += [(given, "the project's details are not an object") for given in ("[1]", '"x"', "7", "null")]
    project = process.project()
    for given, reason in cases:
        process.refused(project, given, reason)
        for table in ("project_qgisproject", "project_qgislayer", "auditlog_logentry"):
            assert database.execute(f"SELECT * FROM {table}") == []


@BY_RELEASE["project"]
def test_files_that_were_lost_meanwhile(process, database):
    project = process.project()
    file = process.row(project)["the_qgis_file_id"]
    database.update("filestorage_file", file, latest_version_id=None)
    process.refused(project, details("a"), "the project's QGIS file has no version")
    database.update("project_project", project["id"], the_qgis_file_id=None)
    process.refused(project, details("a"), "the project has lost its QGIS file")


@BY_RELEASE["newest"]
def test_five_hundred_layers(process):
    """In a handful of statements, and without a row too many."""
    ids = [f"layer_{n}" for n in range(500)]
    project = process.project()
    assert process.finished(project, details(*ids))["statements"] < 10
    first = process.layers(project)
    assert [row["qgis_layer_id"] for row in first] == ids
    process.finished(project, details(*ids))
    assert process.layers(project) == first
    process.finished(project, details(*reversed(ids)))
    assert [row["qgis_layer_id"] for row in process.layers(project)] == ids[::-1]


@BY_RELEASE["newest"]
@pytest.mark.parametrize("mark", ["qfc-fence changing", "qfc-fence gone", "qfc-fence started", "qfc-changed", "integer"])
def test_words_of_our_own_in_an_id(process, database, mark):
    """What a container writes says nothing about whose the job is: it fails like any other with a layer like that."""
    id_ = f'{mark} "integer: "{mark} x'
    project = process.project(details(id_, layers_by_id={id_: {**LAYER, "name": None}}))
    row = process.run(project, "failed")
    assert mark in row["feedback"]["error"] and "name is missing or null" in row["feedback"]["error"]


@BY_RELEASE["newest"]
def test_many_layers_into_a_table_that_nobody_has_analysed(process, database):
    """Quadratic, this would take longer than a statement may."""
    count = 20000
    project = process.project(details(*(f"layer_{n}" for n in range(count))))
    process.run(project)
    assert database.value("SELECT count(*) FROM project_qgislayer") == count
