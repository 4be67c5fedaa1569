# Ignores every signal that can be ignored, and never ends.
play 2
trap '' TERM INT HUP QUIT USR1 USR2
while :; do
    sleep 1
done
