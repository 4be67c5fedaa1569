# A child of process 1 wants @MB megabytes (4096); the command ends with an exit code of its own.
play 2
dd if=/dev/zero of=/dev/null "bs=${parameter:-4096}M" count=1
sleep 1 # so that the engine hears of it first
exit 1
