# The feedback is no JSON: cut off in the middle.
play
feedback | head -c 200 >/io/feedback.json
