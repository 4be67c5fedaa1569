# Takes @SECONDS (1) between its second step and its third.
play 2
sleep "${parameter:-1}"
play
write_feedback
