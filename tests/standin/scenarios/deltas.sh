# apply_deltas with the results of @STATUSES, one for each delta in turn: see deltas.awk.
delta_statuses=$parameter
play
write_feedback
