workflow_id=process_projectfile workflow_name='Process Projectfile' workflow_version=2.0
steps='start_qgis_app:Start QGIS Application
download_project_directory:Download Project Directory
project_validity_check:Project Validity Check
opening_check:Opening Check
project_details:Project Details
generate_thumbnail_image:Generate Thumbnail Image
upload_thumbnail:Upload Thumbnail Image
stop_qgis_app:Stop QGIS Application'

step_project_validity_check() {
    log "Check QGIS project file validity…"
    if [ -z "$offline" ] && [ ! -f "/tmp/files/$qgis_file" ]; then
        fail ProjectFileNotFoundException UNKNOWN "Project file \"/tmp/files/$qgis_file\" does not exist"
        return
    fi
    log "QGIS project file is valid!"
}

step_opening_check() {
    log "Loading the QGIS file \"/tmp/files/$qgis_file\"…"
}

# layer ID NAME GEOM_TYPE WKB_TYPE_NAME
layer() {
    printf '"%s": {"id": "%s", "name": "%s", "crs": "EPSG:4326", "type": 0, "type_name": "Vector", ' "$1" "$1" "$2"
    printf '"geom_type": %s, "wkb_type": 1, "wkb_type_name": "%s", "provider_name": "ogr", ' "$3" "$4"
    printf '"datasource": "/tmp/files/data.gpkg|layername=%s", "filename": "/tmp/files/data.gpkg", ' "$2"
    printf '"is_valid": true, "is_localized": false, "error_code": "no_error", "error_summary": "", '
    printf '"error_message": "", "provider_error_summary": null, "provider_error_message": null, '
    printf '"qfs_action": null, "qfs_cloud_action": null, "qfs_photo_naming": null, '
    printf '"qfs_is_geometry_locked": null, "qfs_unsupported_source_pk": null, "qfc_source_data_pk_name": "fid"}'
}

details() {
    printf '{"project_details": {"project_name": "a stand-in", "crs": "EPSG:4326", '
    printf '"qgis_version": "3.40.6-Bratislava", '
    printf '"background_color": "#ffffff", "attachment_dirs": ["DCIM"], "data_dirs": [], "area_of_interest": "", '
    printf '"extent": "Polygon ((0.10000000000000001 0.2, 10.5 0.2, 10.5 5, 0.10000000000000001 5, '
    printf '0.10000000000000001 0.2))", "ordered_layer_ids": ["points_1", "areas_1"], "layers_by_id": {'
    layer points_1 points 0 Point
    printf ', '
    layer areas_1 areas 2 Polygon
    printf '}}}'
}

step_project_details() {
    log "Extracting project details…"
    returns=$(details) output=$returns
}

# The smallest PNG: one grey dot.
step_generate_thumbnail_image() {
    log "Generate project thumbnail image…"
    printf '%s' 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==' |
        base64 -d >/io/thumbnail.png
    returns='{"thumbnail_filename": "<non-serializable: PosixPath /io/thumbnail.png>"}'
}

step_upload_thumbnail() {
    log "Project thumbnail uploaded!"
}
