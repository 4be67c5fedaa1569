# Prints a megabyte, and then waits until somebody makes the file /io/go.
offline=1
play 2
yes 'a line of the log that says nothing but is exactly 64 bytes lo.' | head -c 1048576
printf 'the last line\n'
until [ -e /io/go ]; do sleep 0.02; done
play
write_feedback
