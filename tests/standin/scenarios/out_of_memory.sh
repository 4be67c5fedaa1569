# Process 1 wants @MB megabytes (4096) of memory, and is killed where its limit is lower.
play 2
exec dd if=/dev/zero of=/dev/null "bs=${parameter:-4096}M" count=1
