# All goes well; the feedback has a number that PostgreSQL's jsonb cannot hold.
offline=1
play
feedback | sed 's/}$/, "huge": 1e999999}/' >/io/feedback.json
