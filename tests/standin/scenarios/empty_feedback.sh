# The feedback is an empty file.
play
: >/io/feedback.json
