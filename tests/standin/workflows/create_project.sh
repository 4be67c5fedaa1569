workflow_id=create_project workflow_name='Create Project' workflow_version=2.0
steps='start_qgis_app:Start QGIS Application
create_project:Create Project
stop_qgis_app:Stop QGIS Application
upload_project_directory:Upload Project'

step_create_project() {
    log "Creating project \"$project_id\"…"
    mkdir -p /tmp/files
    printf '<qgis/>\n' >/tmp/files/project.qgs
}

step_upload_project_directory() {
    upload /tmp/files/project.qgs "files/$project_id/project.qgs/" || return 1
}
