# The feedback is good JSON, but has a number that PostgreSQL's jsonb cannot hold.
offline=1
play
feedback | sed 's/}$/, "huge": 1e999999}/' >/io/feedback.json
