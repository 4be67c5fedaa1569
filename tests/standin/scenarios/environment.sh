# All goes well; the log says what the container was given: arguments, variables, limits, files in /io.
offline=1
play
for argument in "$@"; do printf 'ARGUMENT %s\n' "$argument"; done
env | sort | sed 's/^/VARIABLE /'
cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null | sed 's/^/MEMORY /'
ls -A /io | sed 's/^/IO /'
id -u | sed 's/^/UID /'
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\):/STATUS \1:/p' /proc/self/status
write_feedback
