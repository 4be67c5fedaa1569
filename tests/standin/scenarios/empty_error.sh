# Fails with an error without text.
fail_in=3
play
error=
write_feedback
