# All goes well, and `error` is there and null.
offline=1
play
feedback | sed 's/}$/, "error": null}/' >/io/feedback.json
