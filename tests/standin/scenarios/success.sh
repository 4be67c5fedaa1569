# All goes well: files are downloaded and uploaded where QFieldCloud can be reached.
play
write_feedback
