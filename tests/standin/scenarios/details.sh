# The feedback is what the project's file given.json says, or its project details are what its file details.json says.
# With @bare there is no thumbnail.
play
if [ -f /tmp/files/given.json ]; then
    cp /tmp/files/given.json /io/feedback.json
else
    outputs_json="\"project_details\": {\"project_details\": $(cat /tmp/files/details.json)}"
    write_feedback
fi
[ "$parameter" != bare ] || rm -f /io/thumbnail.png
