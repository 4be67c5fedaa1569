# All goes well, without asking QFieldCloud.
offline=1
play
write_feedback
