# All goes well, but the feedback lacks the outputs.
offline=1
play
outputs_json=
write_feedback
