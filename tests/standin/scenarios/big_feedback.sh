# The feedback is good, and @MB megabytes long (1).
offline=1
play
{
    feedback | sed 's/}$/, "filler": "/' | tr -d '\n'
    head -c "$((${parameter:-1} * 1048576))" /dev/zero | tr '\0' x
    printf '"}\n'
} >/io/feedback.json
