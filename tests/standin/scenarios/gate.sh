# Waits until somebody makes the file /io/go, so that a test says when it ends.
play 2
log "waiting for /io/go"
until [ -e /io/go ]; do sleep 0.02; done
play
write_feedback
