# The feedback is a link, to a good one.
play
feedback >/io/elsewhere.json
ln -s /io/elsewhere.json /io/feedback.json
