# What all scenarios share: the arguments, and playing a workflow's steps with their log and feedback.
#
# A scenario is a file scenarios/NAME.sh. A job plays it when its QGIS file is called NAME.qgs or NAME@PARAMETER.qgs;
# any other file name plays `success`. It has $workflow, $project_id, $qgis_file and $parameter, and calls
#     play [N]         the workflow's steps, or only its first N; sets failed=1 when one fails
#     write_feedback   /io/feedback.json of what was played; `feedback` prints it instead
#     log TEXT         a line on stderr
# and may set beforehand
#     offline=1        to ask no QFieldCloud, even where there is one
#     fail_in=N        to let step N fail
#     delta_statuses   of apply_deltas: see deltas.awk

workflow=$2 project_id=$3 qgis_file=$4
nl='
'

usage_error() {
    printf 'usage: COMMAND %s [-h]\n' "$workflow" >&2
    printf 'COMMAND %s: error: the following arguments are required: %s\n' "$workflow" "$1" >&2
    exit 2
}

case $workflow in
package) [ $# -ge 5 ] || usage_error 'project_id, project_file, offliner_type' ;;
apply_deltas | process_projectfile) [ $# -ge 4 ] || usage_error 'project_id, project_file' ;;
create_project) [ $# -ge 3 ] || usage_error project_id ;;
*)
    printf 'usage: COMMAND [-h] {package,apply_deltas,process_projectfile,create_project} ...\n' >&2
    exit 2
    ;;
esac

scenario=${qgis_file##*/}
scenario=${scenario%.qg?}
parameter=
case $scenario in *@*) parameter=${scenario#*@} scenario=${scenario%%@*} ;; esac
[ -f "/usr/src/app/scenarios/$scenario.sh" ] || scenario=success

log() {
    printf '%s.000 root      INFO     %s\n' "$clock" "$*" >&2
}

# A JSON string of any text without control characters but newlines.
quoted() {
    text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$nl/\\n}
    printf '"%s"' "$text"
}

# fail CLASS TYPE TEXT: what a workflow's exception leaves in the feedback.
fail() {
    failed=1 error_class=$1 error_type=$2 error=$3
    error_stack="Traceback (most recent call last):$nl  ...$nl$error_class: $error$nl"
    return 1
}

play() {
    count=0 played=${1:-99} failed= steps_json= outputs_json=
    while IFS=: read -r id name; do
        count=$((count + 1))
        [ $count -le "$played" ] || break
        play_step
    done <<EOF
$steps
EOF
}

play_step() {
    stage=0 returns='{}' output='{}'
    if [ -z "$failed" ]; then
        read -r uuid </proc/sys/kernel/random/uuid
        clock=$(date +%H:%M:%S)
        printf '::<<<::%s %s\n' "$uuid" "$name" >&2
        if [ $count = "${fail_in:-0}" ]; then
            fail QfcWorkerException UNKNOWN "The step \"$name\" failed, as it was told to."
        else
            "step_$id"
        fi
        [ -n "$failed" ] && stage=1 || stage=2
        printf '::>>>::%s %s\n' "$uuid" $stage >&2
        [ $stage = 2 ] && outputs_json="$outputs_json${outputs_json:+, }\"$id\": $output"
    fi
    step_json="{\"id\": \"$id\", \"name\": \"$name\", \"stage\": $stage, \"returns\": $returns}"
    steps_json="$steps_json${steps_json:+, }$step_json"
}

feedback() {
    printf '{"feedback_version": "2.0", "workflow_version": "%s", "workflow_id": "%s", "workflow_name": "%s", ' \
        "$workflow_version" "$workflow_id" "$workflow_name"
    printf '"steps": [%s], "outputs": {%s}' "$steps_json" "$outputs_json"
    if [ -n "$failed" ]; then
        printf ', "error": %s, "error_type": "%s", ' "$(quoted "$error")" "$error_type"
        printf '"error_class": "%s", "error_stack": %s' "$error_class" "${error_stack_json:-$(quoted "$error_stack")}"
    fi
    printf '}\n'
}

write_feedback() {
    feedback >/io/feedback.json
}

# Steps that several workflows have.

step_start_qgis_app() {
    log "Available user defined environment variables: ${QFIELDCLOUD_EXTRA_ENVVARS:-[]}"
    log "Starting QGIS app version 34006 (stand-in)..."
    log "QGIS app started!"
    returns='{"qgis_version": "3.40.6-Bratislava"}'
}

step_stop_qgis_app() {
    log "Stopping QGIS app…"
    log "Deleted QGIS app!"
}

step_download_project_directory() {
    log "Downloading project files to /tmp/files…"
    mkdir -p /tmp/files
    download_project || return 1
    returns='{"tmp_project_dir": "<non-serializable: PosixPath /tmp>"}'
}

. /usr/src/app/api.sh
. "/usr/src/app/workflows/$workflow.sh"
