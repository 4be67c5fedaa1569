# The arguments are refused: exit code 2, no feedback.
usage_error 'project_id, project_file'
