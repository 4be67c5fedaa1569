# Nobody runs this file: /usr/bin/python3 of the stand-in image is a shell script that plays what it would do.
