# Makes processes without end.
play 2
while :; do
    sleep 1000 &
done
