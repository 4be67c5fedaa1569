# All goes well, but there is nothing to make a picture of.
offline=1
play
rm -f /io/thumbnail.png
write_feedback
