# All goes well, and the project's file feedback.json is what the container leaves as its feedback.
play
cp /tmp/files/feedback.json /io/feedback.json
