# Does the forbidden thing called @WHAT (write), and ends by that.
play 2
case ${parameter:-write} in
write) touch /usr/src/app/mark || exit 1 ;;
mount) mount -t tmpfs none /tmp || exit 1 ;;
raw) traceroute -m 1 127.0.0.1 || exit 1 ;;
esac
play
write_feedback
