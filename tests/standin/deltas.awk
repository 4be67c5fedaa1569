# Reads /io/deltafile.json and prints the delta_feedback that apply_deltas gives for it.
#
# `statuses` is a list such as "status_applied,status_conflict": one for each delta in turn, over and over; `-` leaves a
# delta out. Records end at quotation marks, so they are strings and what stands between strings, by turns; strings are
# passed on as they were written, escapes and all.

BEGIN {
    RS = "\""
    given = split(statuses, status, ",")
}

function finish() {
    deltas++
    for (name in member)
        value[deltas, name] = member[name]
    split("", member)
}

function between(text,    i, c) {
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "{" || c == "[")
            depth++
        if (c == "}" && depth == 3 && section == "deltas")
            finish()
        if (c == "}" || c == "]")
            depth--
        if (c == ":")
            key = string
        else if (c !~ /[ \t\r\n]/)
            key = ""
        if (c == ":" && depth == 1)
            section = string
    }
}

function inside(text) {
    string = text
    if (key != "" && depth == 3 && section == "deltas")
        member[key] = "\"" text "\""
    if (key == "id" && depth == 1)
        file_id = text
}

function escapes_the_mark(text) {
    match(text, /\\*$/)
    return RLENGTH % 2
}

!in_string {
    between($0)
    in_string = 1
    rest = ""
    next
}

{
    rest = rest $0
    if (escapes_the_mark(rest)) {
        rest = rest "\""
        next
    }
    inside(rest)
    in_string = 0
}

function or_null(text) {
    return text == "" ? "null" : text
}

function pk(text) {
    return text ~ /^"[0-9]+"$/ ? substr(text, 2, length(text) - 2) : or_null(text)
}

END {
    printf "["
    for (i = 1; i <= deltas; i++) {
        result = status[(i - 1) % given + 1]
        if (result == "-")
            continue
        printf "%s{\"delta_id\": %s, \"status\": \"%s\", ", (printed++ ? ", " : ""), or_null(value[i, "uuid"]), result
        printf "\"modified_pk\": %s, ", (result == "status_applied" ? pk(value[i, "sourcePk"]) : "null")
        printf "\"msg\": \"%s\", ", (result == "status_applied" ? "Successfully applied delta!" : "Not applied.")
        printf "\"feature_pk\": %s, ", or_null(value[i, "sourcePk"])
        printf "\"layer_id\": %s, ", or_null(value[i, "localLayerId"])
        printf "\"method\": %s, ", or_null(value[i, "method"])
        printf "\"delta_file_id\": \"%s\", \"delta_index\": %d, ", file_id, i - 1
        printf "\"conflicts\": null, \"e_type\": null, \"provider_errors\": null}"
    }
    printf "]"
}
