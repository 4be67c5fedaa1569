# A step fails (@N: which, 3): the reason is in the feedback, the exit code is 0 all the same.
fail_in=${parameter:-3}
play
write_feedback
