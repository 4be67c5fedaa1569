# The log has NUL bytes, broken UTF-8 and control characters, on both streams, and ends without a newline.
offline=1
play
printf 'a NUL: \000, broken: \377\376 \303( \355\240\200, cut: \342\202\n'
printf 'colour: \033[31mred\033[0m, bell: \007, return: one\rtwo\n' >&2
write_feedback
printf 'the end, and no newline' >&2
