# Its first step takes @SECONDS (2), and says so each second.
offline=1
step_start_qgis_app() {
    second=0
    while [ $second -lt "${parameter:-2}" ]; do
        second=$((second + 1))
        log "second $second"
        sleep 1
    done
}
play
write_feedback
