workflow_id=package_project workflow_name='Package Project' workflow_version=2.0
steps='start_qgis_app:Start QGIS Application
download_project_directory:Download Project Directory
qgis_layers_data:QGIS Layers Data
package_project:Package Project
qfield_layer_data:Packaged Layers Data
stop_qgis_app:Stop QGIS Application
upload_packaged_project:Upload Packaged Project'

layers='{"layers_by_id": {"points_1": {"id": "points_1", "name": "points", "crs": "EPSG:4326", "is_valid": true,
    "error_code": "no_error", "provider_name": "ogr", "type": 0, "geom_type": 0, "wkb_type_name": "Point"}}}'

step_qgis_layers_data() {
    log "Extracting QGIS project layer data…"
    returns=$layers output=$layers
}

step_package_project() {
    log "Packaging project \"$qgis_file\"…"
    mkdir -p /tmp/export
    printf 'the data of %s\n' "$project_id" >/tmp/export/data.gpkg
    printf 'the project %s\n' "$qgis_file" >/tmp/export/project_qfield.qgz
}

step_qfield_layer_data() {
    log "Extracting packaged layer data…"
    returns=$layers output=$layers
}

step_upload_packaged_project() {
    log "Uploading packaged project files…"
    for file in data.gpkg project_qfield.qgz; do
        upload /tmp/export/$file "packages/$project_id/$JOB_ID/files/$file/" || return 1
    done
    log "Uploading packaged project files finished!"
}
