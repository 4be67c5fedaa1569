# The feedback is a pipe.
play
mkfifo /io/feedback.json
