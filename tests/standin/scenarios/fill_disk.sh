# Fills the file system that /tmp is on, @MB megabytes (1000000) at most, and ends by that.
play 2
dd if=/dev/zero of=/tmp/full bs=1M "count=${parameter:-1000000}" || exit 1
play
write_feedback
