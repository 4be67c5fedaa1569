# The feedback is a directory.
play
mkdir /io/feedback.json
feedback >/io/feedback.json/feedback.json
