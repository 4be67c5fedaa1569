# Fails like releases up to v26.14: error_stack is an array.
fail_in=3
play
error_stack_json='["Traceback (most recent call last):\n", "  ...\n", "QfcWorkerException: failed\n"]'
write_feedback
