# All goes well; the log says what the container was given: arguments, and deltafile.json as base64.
offline=1
play
{
    for argument in "$@"; do printf 'ARGUMENT %s\n' "$argument"; done
    printf 'DELTAFILE\n'
    base64 /io/deltafile.json
    printf 'END\n'
} >&2
write_feedback
