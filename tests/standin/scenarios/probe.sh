# Tries what a container must not be able to do, says how each went, and ends well.
offline=1
play
probe() {
    name=$1
    shift
    if said=$("$@" 2>&1); then said=done; fi
    printf 'PROBE %s: %s\n' "$name" "$(printf '%s' "$said" | tr '\n' ' ')"
}
probe write touch /usr/src/app/mark
probe write_io touch /io/mark
probe write_tmp touch /tmp/mark
probe write_root touch /root/mark
probe mount mount -t tmpfs none /tmp
probe raw_socket arping -c 1 -w 1 127.0.0.1
probe device mknod /tmp/null c 1 3
probe owner chown 1 /tmp
probe kernel_log dmesg
probe host_name hostname other
printf 'PROCESSES %s\n' "$(cat /proc/[0-9]*/comm 2>/dev/null | sort -u | tr '\n' ' ')"
sed -n 's/^\(CapEff\|CapBnd\|NoNewPrivs\):[[:space:]]*/STATUS \1 /p' /proc/self/status
write_feedback
