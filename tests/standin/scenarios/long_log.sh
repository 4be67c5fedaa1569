# As big_log, @MB megabytes (1), after a second in which nothing is printed.
play 2
sleep 1
yes 'a line of the log that says nothing but is exactly 64 bytes lo.' | head -c "$((${parameter:-1} * 1048576))"
printf 'the last line\n'
write_feedback
