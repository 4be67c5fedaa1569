# Asking QFieldCloud with the job's token: listing, downloading and uploading files.

# Sets offline=1 when there is nobody to ask: no address, or no network but the container's own.
look_for_network() {
    [ -n "$offline" ] && return
    [ -n "$QFIELDCLOUD_URL" ] && [ "$(wc -l </proc/net/route)" -gt 1 ] && return
    offline=1
    log "No QFieldCloud to ask: going on without it."
}

# request TARGET PATH [wget options]: the answer's body goes to the file TARGET.
request() {
    target=$1 url=$QFIELDCLOUD_URL$2
    shift 2
    wget -q -O "$target" --header "Authorization: token $QFIELDCLOUD_TOKEN" "$@" "$url" </dev/null 2>/tmp/wget && return
    status=$(sed -n 's,.*HTTP/1\.[01] ,,p' /tmp/wget)
    case $status in
    401*) fail QfcRequestException API_TOKEN_EXPIRED "Requested \"$url\" and got \"$status\"" ;;
    ?*) fail QfcRequestException UNKNOWN "Requested \"$url\" and got \"$status\"" ;;
    *) fail ConnectionError UNKNOWN "Requested \"$url\": $(cat /tmp/wget)" ;;
    esac
}

# A file name as part of an address: what is not plain is written as %xx, byte by byte.
escaped() {
    case $1 in
    *[!A-Za-z0-9._/-]*) printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g; s/%2f/\//g' ;;
    *) printf %s "$1" ;;
    esac
}

# The names in QFieldCloud's list of a project's files.
listed_names() {
    tr '{' '\n' | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p'
}

download_project() {
    look_for_network
    [ -n "$offline" ] && return
    request /tmp/list "files/$project_id/?skip_metadata=1" || return
    listed_names </tmp/list >/tmp/names
    while read -r file || [ -n "$file" ]; do
        log "Downloading file \"$file\"…"
        case $file in */*) mkdir -p "/tmp/files/${file%/*}" ;; esac
        request "/tmp/files/$file" "files/$project_id/$(escaped "$file")/" || return
    done </tmp/names
    log "Downloading project files finished!"
}

# upload FILE PATH: as a form with one file.
upload() {
    look_for_network
    [ -n "$offline" ] && return
    log "Uploading file \"${1##*/}\"…"
    {
        printf -- '--standin\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' "${1##*/}"
        cat "$1"
        printf '\r\n--standin--\r\n'
    } >/tmp/form
    request /tmp/answer "$2" --header "Content-Type: multipart/form-data; boundary=standin" --post-file /tmp/form
}
