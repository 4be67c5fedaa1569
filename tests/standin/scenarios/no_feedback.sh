# Ends well, but has written no feedback.
play
