# All goes well, but the project has no name.
offline=1
play
feedback | sed 's/"project_name": "a stand-in"/"project_name": null/g' >/io/feedback.json
