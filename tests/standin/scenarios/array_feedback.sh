# The feedback is JSON, but no object.
play
printf '["not", {"an": "object"}, 0.1]\n' >/io/feedback.json
