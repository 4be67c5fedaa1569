workflow_id=apply_changes workflow_name='Apply Changes' workflow_version=3.0
steps='start_qgis_app:Start QGIS Application
download_project_directory:Download Project Directory
apply_deltas:Apply Deltas
stop_qgis_app:Stop QGIS Application
upload_project_directory:Upload Project'

step_apply_deltas() {
    log "Loading delta file \"/io/deltafile.json\"..."
    if [ ! -f /io/deltafile.json ]; then
        fail FileNotFoundError UNKNOWN 'No such file: /io/deltafile.json'
        return
    fi
    results=$(awk -v "statuses=${delta_statuses:-status_applied}" -f /usr/src/app/deltas.awk /io/deltafile.json)
    returns="{\"delta_feedback\": $results}" output=$returns
}

step_upload_project_directory() {
    log "Uploading project files…"
    [ -f /tmp/files/data.gpkg ] || return 0
    printf 'with deltas of %s\n' "$JOB_ID" >>/tmp/files/data.gpkg
    upload /tmp/files/data.gpkg "files/$project_id/data.gpkg/" || return 1
    log "Uploading project files finished!"
}
