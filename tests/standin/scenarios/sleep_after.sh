# Has written its feedback, and goes on for @SECONDS (1).
play
write_feedback
sleep "${parameter:-1}"
