# What Python's JSON allows and PostgreSQL's does not, in an output of its own; and numbers that must stay as they are.
offline=1
play
odd='{"nan": NaN, "infinity": Infinity, "minus": -Infinity, "in": [NaN, -Infinity], "text": "NaN",
    "nul": "a\u0000b", "lone": "a\ud800b", "low": "\udc00", "pair": "\ud83d\ude00", "escaped": "\\u0000",
    "tenth": 0.1, "long": 123456789012345678901234567890, "exact": 1.10}'
outputs_json="$outputs_json, \"odd\": $odd"
write_feedback
