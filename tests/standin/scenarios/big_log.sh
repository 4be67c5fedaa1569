# The log is @MB megabytes long (1), in lines of 64 bytes.
offline=1
play
yes 'a line of the log that says nothing but is exactly 64 bytes lo.' | head -c "$((${parameter:-1} * 1048576))"
printf 'the last line\n'
write_feedback
