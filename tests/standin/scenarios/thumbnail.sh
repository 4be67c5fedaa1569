# All goes well, and a picture of the project is left where older releases' workers look for it.
offline=1
play
printf 'a picture' >/io/thumbnail.png
write_feedback
