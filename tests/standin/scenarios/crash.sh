# Dies in the middle (@CODE: its exit code, 1): part of a log, no feedback.
play 2
printf 'Fatal Python error: Segmentation fault' >&2
exit "${parameter:-1}"
